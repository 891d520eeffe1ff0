// Small text files of lines, written so that several processes can do so at once and none ever
// reads half of one: under another name, then renamed.
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "ggml/message.h"

#define TEXT_PATH_SIZE 4096
#define TEXT_LINE_SIZE 400

// Reads a line without its end; false where there is none or it is too long.
bool text_read_line(FILE * file, char line[TEXT_LINE_SIZE]);

// directory/name; false where that is too long.
bool text_path(char path[TEXT_PATH_SIZE], const char * directory, const char * name);

// Replaces the file by what `write` writes. The directory is made where it is missing, its parent
// is not. False, with a reason that begins with `what`, when the file could not be written.
bool text_replace(const char * directory, const char * name,
                  void (*write)(FILE * file, const void * data), const void * data,
                  const char * what, const struct message * message);
