// A bounded buffer for the reason of a failure. `text` may be NULL: nobody wants to know.
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

struct message {
    char * text;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static inline void message_set(const struct message * message,
                                                                     const char * format, ...) {
    if (message->text != NULL && message->size > 0) {
        va_list args;
        va_start(args, format);
        vsnprintf(message->text, message->size, format, args);
        va_end(args);
    }
}
