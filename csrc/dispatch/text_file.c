#include "text_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool text_read_line(FILE * file, char line[TEXT_LINE_SIZE]) {
    if (fgets(line, TEXT_LINE_SIZE, file) == NULL) {
        return false;
    }
    const size_t n = strlen(line);
    if (n == 0 || line[n - 1] != '\n') {
        return false;
    }
    line[n - 1] = '\0';
    return true;
}

bool text_path(char path[TEXT_PATH_SIZE], const char * directory, const char * name) {
    const int n = snprintf(path, TEXT_PATH_SIZE, "%s/%s", directory, name);
    return n > 0 && n < TEXT_PATH_SIZE;
}

static bool finish(FILE * file) {
    const bool ok = !ferror(file);
    return fclose(file) == 0 && ok;
}

bool text_replace(const char * directory, const char * name,
                  void (*write)(FILE * file, const void * data), const void * data,
                  const char * what, const struct message * message) {
    char path[TEXT_PATH_SIZE], temporary[TEXT_PATH_SIZE + 16];
    if (!text_path(path, directory, name)) {
        message_set(message, "the path of the tuning folder is too long: %s", directory);
        return false;
    }
    mkdir(directory, 0777);  // where that fails, so does what follows
    snprintf(temporary, sizeof(temporary), "%s.XXXXXX", path);
    const int fd = mkstemp(temporary);
    FILE * file = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (file == NULL && fd >= 0) {
        close(fd);
    }
    if (file != NULL) {
        write(file, data);
    }
    if (file == NULL || !finish(file) || rename(temporary, path) != 0) {
        message_set(message, "%s cannot be kept in %s: %s", what, directory, strerror(errno));
        if (fd >= 0) {
            unlink(temporary);
        }
        return false;
    }
    return true;
}
