/* Stub of the CUDA driver, of which PyTorch's host code calls a few functions. */
#include <stdint.h>
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return 0;
}
int cuCtxGetCurrent(void **context) { *context = (void *)1; return 0; }
int cuGetErrorString(int error, const char **text) { *text = "error of the stub"; return 0; }
int cuPointerGetAttribute(void *value, int attribute, uintptr_t p) { *(uintptr_t *)value = 0; return 0; }
