/* Stub of the CUDA runtime: kernels do nothing; streams, captures, events, memory and counters behave as CUDA's. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define EXPORT cudaError_t
#define NONE 0
#define ACTIVE 1
#define INVALID 2

typedef struct Graph { size_t nodes; } Graph;
typedef struct Stream { int capture; unsigned long long id; Graph *graph; int priority; double busy_until; } Stream;
typedef struct Event { Stream *captured_by; unsigned long long id; Graph *graph; double done_at; } Event;

/* State of the device. */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Stream default_stream;
static Stream *streams[4096];
static int n_streams;
static unsigned long long n_captures;
static size_t total_memory = 150754820096ull, used_memory;
static double graph_seconds, kernel_seconds;
static unsigned long long launches, graph_launches, graph_nodes, copies, allocations, releases, waits, forbidden;
static unsigned long long failure_after = ~0ull;
static cudaError_t last_error;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Functions for the tests; Python calls them through ctypes. */

unsigned long long stub_count(int which) {
    unsigned long long values[] = {launches, graph_launches, graph_nodes, copies, allocations,
                                   releases, waits,          forbidden,   used_memory};
    return values[which];
}
void stub_fail_after(unsigned long long n) { failure_after = n == ~0ull ? n : launches + graph_launches + n; last_error = 0; }
void stub_seconds(double graph, double kernel) { graph_seconds = graph; kernel_seconds = kernel; }
void stub_memory(size_t bytes) { total_memory = bytes; }

/* Kernels by the address of their host function. */

#define KERNELS 65536
static struct { const void *function; const char *name; unsigned long long launched; } kernels[KERNELS];

static unsigned slot(const void *function) {
    unsigned i = (unsigned)(((size_t)function >> 4) * 2654435761u) % KERNELS;
    while (kernels[i].function && kernels[i].function != function) i = (i + 1) % KERNELS;
    return i;
}
unsigned long long stub_kernel(const char *part) {
    unsigned long long n = 0;
    for (int i = 0; i < KERNELS; i++) if (kernels[i].launched && strstr(kernels[i].name, part)) n += kernels[i].launched;
    return n;
}
void __cudaRegisterFunction(void **fat, const char *host, char *device, const char *name, int limit, void *a, void *b,
                            void *c, void *d, int *e) {
    unsigned i = slot(host);
    kernels[i].function = host;
    kernels[i].name = name;
}
void **__cudaRegisterFatBinary(void *binary) { static void *handle[4]; return handle; }
void __cudaRegisterFatBinaryEnd(void **handle) {}
void __cudaUnregisterFatBinary(void **handle) {}
void __cudaRegisterVar(void **f, char *h, char *d, const char *n, int e, size_t s, int c, int g) {}
char __cudaInitModule(void **handle) { return 1; }

/* Errors. */

static cudaError_t fail(cudaError_t error) { if (error) last_error = error; return error; }
static int broken(void) { return launches + graph_launches >= failure_after; }
#define CHECK if (broken()) return fail(cudaErrorIllegalAddress)

EXPORT cudaGetLastError(void) { cudaError_t error = last_error; last_error = 0; return error; }
EXPORT cudaPeekAtLastError(void) { return last_error; }
const char *cudaGetErrorName(cudaError_t error) { return "cudaErrorOfTheStub"; }
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    default: return "error of the stub";
    }
}

/* Streams and captures. */

static Stream *of(cudaStream_t s) { return (size_t)s <= 2 ? &default_stream : (Stream *)s; }
static void invalidate(Stream *s) {
    for (int i = 0; i < n_streams; i++)
        if (streams[i]->capture && streams[i]->id == s->id) streams[i]->capture = INVALID;
}
static int capturing(void) {
    for (int i = 0; i < n_streams; i++) if (streams[i]->capture) return 1;
    return 0;
}
static void work(Stream *s, double seconds) {
    double t = now();
    if (seconds > 0) s->busy_until = (s->busy_until > t ? s->busy_until : t) + seconds;
}
static void wait_until(double t) { while (now() < t) usleep(20); }

EXPORT cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority) {
    Stream *made = calloc(1, sizeof *made);
    made->priority = priority;
    pthread_mutex_lock(&lock);
    streams[n_streams++ % 4096] = made;
    pthread_mutex_unlock(&lock);
    *s = (cudaStream_t)made;
    return 0;
}
EXPORT cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags) { return cudaStreamCreateWithPriority(s, flags, 0); }
EXPORT cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithPriority(s, 0, 0); }
EXPORT cudaStreamGetPriority(cudaStream_t s, int *priority) { *priority = of(s)->priority; return 0; }
EXPORT cudaStreamSynchronize(cudaStream_t s) {
    CHECK;
    waits++;
    if (of(s)->capture) { invalidate(of(s)); return fail(cudaErrorStreamCaptureUnsupported); }
    wait_until(of(s)->busy_until);
    return 0;
}
EXPORT cudaStreamQuery(cudaStream_t s) {
    CHECK;
    if (of(s)->capture) { invalidate(of(s)); return fail(cudaErrorStreamCaptureUnsupported); }
    return now() >= of(s)->busy_until ? 0 : fail(cudaErrorNotReady);
}
EXPORT cudaDeviceSynchronize(void) {
    CHECK;
    waits++;
    wait_until(default_stream.busy_until);
    for (int i = 0; i < n_streams; i++) wait_until(streams[i]->busy_until);
    return 0;
}
EXPORT cudaStreamBeginCapture(cudaStream_t s, enum cudaStreamCaptureMode mode) {
    Stream *stream = of(s);
    if (stream == &default_stream) return fail(cudaErrorStreamCaptureUnsupported);
    stream->capture = ACTIVE;
    stream->id = ++n_captures;
    stream->graph = calloc(1, sizeof(Graph));
    return 0;
}
EXPORT cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
    Stream *stream = of(s);
    int state = stream->capture;
    for (int i = 0; i < n_streams; i++)
        if (streams[i]->capture && streams[i]->id == stream->id) streams[i]->capture = NONE;
    *graph = state == ACTIVE ? (cudaGraph_t)stream->graph : 0;
    return state == ACTIVE ? 0 : fail(cudaErrorStreamCaptureInvalidated);
}
EXPORT cudaStreamIsCapturing(cudaStream_t s, enum cudaStreamCaptureStatus *status) { *status = of(s)->capture; return 0; }
EXPORT cudaStreamGetCaptureInfo(cudaStream_t s, enum cudaStreamCaptureStatus *status, unsigned long long *id,
                                cudaGraph_t *graph, const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges,
                                size_t *n) {
    Stream *stream = of(s);
    *status = stream->capture;
    if (id) *id = stream->capture ? stream->id : 0;
    if (graph) *graph = (cudaGraph_t)(stream->capture ? stream->graph : 0);
    if (nodes) *nodes = 0;
    if (edges) *edges = 0;
    if (n) *n = 0;
    return 0;
}
static __thread enum cudaStreamCaptureMode capture_mode = cudaStreamCaptureModeGlobal;
EXPORT cudaThreadExchangeStreamCaptureMode(enum cudaStreamCaptureMode *mode) {
    enum cudaStreamCaptureMode old = capture_mode;
    capture_mode = *mode;
    *mode = old;
    return 0;
}
EXPORT cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *n) { *n = ((Graph *)graph)->nodes; return 0; }
EXPORT cudaGraphInstantiateWithFlags(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long flags) {
    Graph *copy = malloc(sizeof *copy);
    *copy = *(Graph *)graph;
    graph_nodes = copy->nodes;
    *made = (cudaGraphExec_t)copy;
    return 0;
}
EXPORT cudaGraphDestroy(cudaGraph_t graph) { free(graph); return 0; }
EXPORT cudaGraphExecDestroy(cudaGraphExec_t graph) { free(graph); return 0; }
EXPORT cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s) {
    CHECK;
    if (of(s)->capture == INVALID) return fail(cudaErrorStreamCaptureInvalidated);
    graph_launches++;
    work(of(s), graph_seconds);
    return 0;
}

/* Kernels. */

static cudaError_t launch(const void *function, cudaStream_t s) {
    CHECK;
    Stream *stream = of(s);
    unsigned i = slot(function);
    if (kernels[i].function) kernels[i].launched++;
    if (stream->capture == INVALID) return fail(cudaErrorStreamCaptureInvalidated);
    if (stream->capture) { stream->graph->nodes++; return 0; }
    __atomic_add_fetch(&launches, 1, __ATOMIC_RELAXED);
    work(stream, kernel_seconds);
    return 0;
}
EXPORT cudaLaunchKernel(const void *f, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t s) { return launch(f, s); }
EXPORT __cudaLaunchKernel(void *f, dim3 grid, dim3 block, void **arguments, size_t shared, cudaStream_t s) { return launch(f, s); }
EXPORT cudaLaunchKernelExC(const cudaLaunchConfig_t *c, const void *f, void **arguments) { return launch(f, c->stream); }
EXPORT __cudaGetKernel(void **kernel, const void *f) { *kernel = (void *)f; return 0; }

static __thread struct { dim3 grid, block; size_t shared; void *stream; } pushed[8];
static __thread int n_pushed;
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void *stream) {
    pushed[n_pushed].grid = grid;
    pushed[n_pushed].block = block;
    pushed[n_pushed].shared = shared;
    pushed[n_pushed++].stream = stream;
    return 0;
}
EXPORT __cudaPopCallConfiguration(dim3 *grid, dim3 *block, size_t *shared, void *stream) {
    n_pushed--;
    *grid = pushed[n_pushed].grid;
    *block = pushed[n_pushed].block;
    *shared = pushed[n_pushed].shared;
    *(void **)stream = pushed[n_pushed].stream;
    return 0;
}

/* Events. */

EXPORT cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) { *e = (cudaEvent_t)calloc(1, sizeof(Event)); return 0; }
EXPORT cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, 0); }
EXPORT cudaEventDestroy(cudaEvent_t e) { free(e); return 0; }
EXPORT cudaEventRecordWithFlags(cudaEvent_t e, cudaStream_t s, unsigned flags) {
    CHECK;
    Event *event = (Event *)e;
    Stream *stream = of(s);
    double t = now();
    event->captured_by = stream->capture ? stream : 0;
    event->id = stream->id;
    event->graph = stream->graph;
    event->done_at = stream->busy_until > t ? stream->busy_until : t;
    return 0;
}
EXPORT cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return cudaEventRecordWithFlags(e, s, 0); }
EXPORT cudaEventQuery(cudaEvent_t e) {
    CHECK;
    Event *event = (Event *)e;
    if (event->captured_by && event->captured_by->capture) {
        invalidate(event->captured_by);
        return fail(cudaErrorStreamCaptureUnsupported);
    }
    return now() >= event->done_at ? 0 : fail(cudaErrorNotReady);
}
EXPORT cudaEventSynchronize(cudaEvent_t e) { CHECK; waits++; wait_until(((Event *)e)->done_at); return 0; }
EXPORT cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = (float)(1000 * (((Event *)b)->done_at - ((Event *)a)->done_at));
    return 0;
}
EXPORT cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags) {
    Event *event = (Event *)e;
    Stream *stream = of(s);
    if (event->captured_by && event->captured_by->capture == ACTIVE && !stream->capture) {
        stream->capture = ACTIVE; /* the other stream joins the capture */
        stream->id = event->id;
        stream->graph = event->graph;
    } else if (stream->capture == ACTIVE && !event->captured_by) {
        invalidate(stream);
        return fail(cudaErrorStreamCaptureIsolation);
    }
    if (!stream->capture && event->done_at > stream->busy_until) stream->busy_until = event->done_at;
    return 0;
}

/* Memory: a block is preceded by a header of 512 bytes that holds its size. */

static cudaError_t allocate(void **p, size_t n) {
    void *block = 0;
    *p = 0;
    if (used_memory + n > total_memory || posix_memalign(&block, 512, n + 512)) return fail(cudaErrorMemoryAllocation);
    memset(block, 0, n < (64u << 20) ? n + 512 : 512);
    *(size_t *)block = n;
    used_memory += n;
    *p = (char *)block + 512;
    return 0;
}
EXPORT cudaMalloc(void **p, size_t n) {
    CHECK;
    allocations++;
    if (capturing() && capture_mode != cudaStreamCaptureModeRelaxed) forbidden++;
    return allocate(p, n);
}
EXPORT cudaFree(void *p) {
    if (!p) return 0;
    releases++;
    if (capturing() && capture_mode != cudaStreamCaptureModeRelaxed) forbidden++;
    used_memory -= *(size_t *)((char *)p - 512);
    free((char *)p - 512);
    return 0;
}
EXPORT cudaHostAlloc(void **p, size_t n, unsigned flags) { return posix_memalign(p, 4096, n) ? 2 : 0; }
EXPORT cudaFreeHost(void *p) { free(p); return 0; }
EXPORT cudaMemGetInfo(size_t *available, size_t *total) {
    *available = total_memory - used_memory;
    *total = total_memory;
    return 0;
}
static cudaError_t copy(void *to, const void *from, size_t n, cudaStream_t s, int wait) {
    CHECK;
    Stream *stream = of(s);
    if (stream->capture == ACTIVE && wait) { invalidate(stream); return fail(cudaErrorStreamCaptureUnsupported); }
    if (stream->capture == INVALID) return fail(cudaErrorStreamCaptureInvalidated);
    if (stream->capture) { stream->graph->nodes++; return 0; }
    copies++;
    if (n < (256u << 20)) memmove(to, from, n);
    return 0;
}
EXPORT cudaMemcpyAsync(void *to, const void *from, size_t n, enum cudaMemcpyKind kind, cudaStream_t s) {
    static const char zeros[8];
    if (kind == cudaMemcpyDeviceToHost && n <= 8) from = zeros; /* a scalar that no kernel has computed */
    return copy(to, from, kind == cudaMemcpyDeviceToDevice && n > 65536 ? 0 : n, s, 0);
}
EXPORT cudaMemcpy(void *to, const void *from, size_t n, enum cudaMemcpyKind kind) { return copy(to, from, n, 0, 1); }
EXPORT cudaMemcpy2DAsync(void *to, size_t a, const void *from, size_t b, size_t w, size_t h, enum cudaMemcpyKind kind,
                         cudaStream_t s) { return copy(to, from, 0, s, 0); }
EXPORT cudaMemsetAsync(void *to, int value, size_t n, cudaStream_t s) {
    CHECK;
    if (of(s)->capture) { of(s)->graph->nodes++; return 0; }
    copies++;
    memset(to, value, n);
    return 0;
}
EXPORT cudaMemset(void *to, int value, size_t n) { memset(to, value, n); return 0; }
EXPORT cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
    memset(a, 0, sizeof *a);
    a->type = cudaMemoryTypeUnregistered;
    return 0;
}
EXPORT cudaGetSymbolAddress(void **p, const void *symbol) { static char memory[1 << 20]; *p = memory; return 0; }
EXPORT cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int device) { *pool = (cudaMemPool_t)1; return 0; }

/* Properties of the device: a Hopper GPU. */

EXPORT cudaGetDeviceCount(int *n) { *n = 1; return 0; }
static __thread int current_device;
EXPORT cudaGetDevice(int *device) { *device = current_device; return 0; }
EXPORT cudaSetDevice(int device) { current_device = device; return 0; }
EXPORT cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
EXPORT cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
EXPORT cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
    memset(p, 0, sizeof *p);
    strcpy(p->name, "Stub");
    p->totalGlobalMem = total_memory;
    p->sharedMemPerBlock = 49152;
    p->regsPerBlock = p->regsPerMultiprocessor = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 2147483647;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->major = 9;
    p->multiProcessorCount = 132;
    p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerMultiprocessor = 233472;
    p->sharedMemPerBlockOptin = 232448;
    p->l2CacheSize = 62914560;
    p->textureAlignment = 512;
    p->concurrentKernels = p->unifiedAddressing = p->managedMemory = p->cooperativeLaunch = 1;
    p->maxBlocksPerMultiProcessor = 32;
    return 0;
}
EXPORT cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device) {
    struct cudaDeviceProp p;
    cudaGetDeviceProperties(&p, device);
    switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = p.sharedMemPerBlock; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[1]; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    default: *value = 0;
    }
    return 0;
}
EXPORT cudaDeviceGetStreamPriorityRange(int *low, int *high) {
    if (low) *low = 0;
    if (high) *high = -5;
    return 0;
}
EXPORT cudaDeviceCanAccessPeer(int *can, int a, int b) { *can = 0; return 0; }
EXPORT cudaDeviceGetPCIBusId(char *text, int n, int device) { snprintf(text, n, "0000:00:00.0"); return 0; }
EXPORT cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
    memset(a, 0, sizeof *a);
    a->maxThreadsPerBlock = 1024;
    a->numRegs = 32;
    a->ptxVersion = a->binaryVersion = 90; /* by which CUB chooses its kernels */
    return 0;
}
EXPORT cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int block, size_t s, unsigned flags) {
    *n = block > 0 && block <= 2048 ? 2048 / block : 1;
    return 0;
}
static int nothing(void) { return 0; }
static int primary_context(int device, unsigned *flags, int *active) {
    if (flags) *flags = 0;
    if (active) *active = 1;
    return 0;
}
EXPORT cudaGetDriverEntryPointByVersion(const char *name, void **p, unsigned version, unsigned long long flags,
                                        enum cudaDriverEntryPointQueryResult *result) {
    *p = strcmp(name, "cuDevicePrimaryCtxGetState") ? (void *)nothing : (void *)primary_context;
    if (result) *result = cudaDriverEntryPointSuccess;
    return 0;
}
