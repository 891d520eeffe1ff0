// Names and texts of CUDA's errors.
#pragma once

#include <stdbool.h>

#include "cuda_api.h"

CUresult error_text(CUresult error, const char ** text, bool name);
