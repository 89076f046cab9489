/* Stub of cuBLAS: a handle and its properties; products do nothing. */
static int handle[64];
int cublasCreate_v2(void **made) { *made = handle; return 0; }
int cublasGetPointerMode_v2(void *h, int *mode) { *mode = 0; return 0; }
int cublasGetMathMode(void *h, int *mode) { *mode = 0; return 0; }
int cublasGetStream_v2(void *h, void **stream) { *stream = 0; return 0; }
int cublasGetVersion_v2(void *h, int *version) { *version = 130000; return 0; }
const char *cublasGetStatusString(int status) { return "success"; }
