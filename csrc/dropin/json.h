// Text that grows, as far as there is room.
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

struct json {
    char * text;
    size_t size;
    size_t length;  // that it would have, were there room
};

__attribute__((format(printf, 2, 3))) static inline void json_add(struct json * json,
                                                                  const char * format, ...) {
    va_list args;
    const size_t room = json->length < json->size ? json->size - json->length : 0;
    va_start(args, format);
    const int n = vsnprintf(room > 0 ? json->text + json->length : NULL, room, format, args);
    va_end(args);
    json->length += n > 0 ? (size_t) n : 0;
}

static inline void json_string(struct json * json, const char * string) {
    json_add(json, "\"");
    for (; *string != '\0'; string++) {
        const unsigned char c = (unsigned char) *string;
        if (c == '"' || c == '\\') {
            json_add(json, "\\%c", c);
        } else if (c < 0x20) {
            json_add(json, "\\u%04x", c);
        } else {
            json_add(json, "%c", c);
        }
    }
    json_add(json, "\"");
}
