// The simulated device, also for the C that is taken from ggml-metal-device.m.
#pragma once

#include "ggml-metal-device.h"

struct ggml_metal_device {
    struct ggml_metal_device_props props;
    struct ggml_metal_fusion_info * finfo;
    struct metal_queue * queue;
};
