// A stand-in for NVIDIA's driver, as far as kernels/ptx/driver.py goes through cuda.core: one device of compute
// capability 9.0 whose memory is the host's. A launch calls back into Python, which runs the kernel on the emulator.
// All is done in the order of the calls, whatever stream they name; waits between streams are written down.
//
// FAKE_CUDA_DEVICES, FAKE_CUDA_VERSION and FAKE_CUDA_MAJOR make it a machine without a device, with an old driver, with
// an old device.
//
// What is not here does not resolve, and cuda.bindings says its name.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;       // CUresult
typedef uint64_t pointer; // CUdeviceptr
typedef struct {          // CUlaunchConfig
    unsigned grid[3], block[3], shared;
    void *stream, *attributes;
    unsigned n_attributes;
} launch_config;
typedef void launched(const char *name, const launch_config *config, void **parameters);

enum { OK = 0, INVALID = 1, NO_DEVICE = 100, UNSUPPORTED = 801, MOST = 4096 };
static struct { char *start; size_t size; } blocks[MOST];
static launched *on_launch;
static char waits[4096];
static long allocated, freed;

// ---- for the test

void fake_set_launch(launched *f) { on_launch = f; }
const char *fake_waits(void) { return waits; }
long fake_live(void) { return allocated - freed; }
int fake_blocks(uint64_t *starts, uint64_t *sizes) {
    int n = 0;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].start) starts[n] = (uint64_t)(uintptr_t)blocks[i].start, sizes[n++] = blocks[i].size;
    return n;
}

// ---- how bindings find everything else

result cuGetProcAddress_v2(const char *name, void **found, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    static void *self;
    Dl_info info;
    if (!self && dladdr((void *)fake_live, &info)) self = dlopen(info.dli_fname, RTLD_NOLOAD | RTLD_NOW);
    *found = self ? dlsym(self, name) : NULL;
    if (status) *status = *found ? 0 : 1;
    return OK;
}

// ---- device and context

static int device_zero, context, pool;
static int setting(const char *name, int usual) { return getenv(name) ? atoi(getenv(name)) : usual; }
result cuInit(unsigned flags) { return flags ? INVALID : setting("FAKE_CUDA_DEVICES", 1) ? OK : NO_DEVICE; }
result cuDriverGetVersion(int *version) { return *version = setting("FAKE_CUDA_VERSION", 13000), OK; }
result cuDeviceGetCount(int *count) { return *count = setting("FAKE_CUDA_DEVICES", 1), OK; }
result cuDeviceGet(int *device, int number) { return *device = number, number ? INVALID : OK; }
result cuDeviceGetName(char *name, int length, int device) { return snprintf(name, length, "Fake %d", device), OK; }
result cuDeviceGetAttribute(int *value, int attribute, int device) {
    (void)device;
    return *value = attribute == 75 ? setting("FAKE_CUDA_MAJOR", 9) : attribute == 76 ? 0 : 1, OK;
}
result cuDevicePrimaryCtxRetain(void **c, int device) { return (void)device, *c = &context, OK; }
result cuCtxSetCurrent(void *c) { return c == &context ? OK : INVALID; }
result cuCtxGetCurrent(void **c) { return *c = &context, OK; }
result cuCtxPushCurrent(void *c) { return (void)c, OK; }
result cuCtxPopCurrent(void **c) { return *c = &context, OK; }
result cuCtxGetDevice(int *device) { return *device = device_zero, OK; }
result cuGetErrorName(result error, const char **name) {
    return *name = error ? "CUDA_ERROR_OF_THE_FAKE" : "CUDA_SUCCESS", OK;
}
result cuGetErrorString(result error, const char **text) {
    return (void)error, *text = "an error of the fake driver", OK;
}

// ---- memory: what is freed is poisoned, and every copy must lie in one live block

result cuDeviceGetDefaultMemPool(void **p, int device) { return (void)device, *p = &pool, OK; }
result cuDeviceGetMemPool(void **p, int device) { return (void)device, *p = &pool, OK; }
result cuMemGetDefaultMemPool(void **p, void *location, int type) { return (void)location, (void)type, *p = &pool, OK; }
result cuMemGetMemPool(void **p, void *location, int type) { return (void)location, (void)type, *p = &pool, OK; }
result cuMemPoolGetAttribute(void *p, int attribute, void *value) {
    return (void)p, (void)attribute, memset(value, 0, 8), OK;
}
result cuMemPoolSetAttribute(void *p, int attribute, void *value) { return (void)p, (void)attribute, (void)value, OK; }

result cuMemAllocFromPoolAsync(pointer *p, size_t size, void *from, void *stream) {
    (void)from, (void)stream;
    for (int i = 0; i < MOST; i++)
        if (!blocks[i].start) {
            blocks[i].start = aligned_alloc(256, (size + 255) / 256 * 256);
            blocks[i].size = size;
            memset(blocks[i].start, 0xFF, size);
            allocated++;
            return *p = (pointer)(uintptr_t)blocks[i].start, OK;
        }
    return 2;
}
result cuMemAllocAsync(pointer *p, size_t size, void *stream) {
    return cuMemAllocFromPoolAsync(p, size, &pool, stream);
}

result cuMemFreeAsync(pointer p, void *stream) {
    (void)stream;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].start && blocks[i].start == (char *)(uintptr_t)p) {
            memset(blocks[i].start, 0xFF, blocks[i].size);
            free(blocks[i].start);
            blocks[i].start = NULL;
            freed++;
            return OK;
        }
    return INVALID;
}

static int inside(pointer p, size_t size) {
    const char *at = (const char *)(uintptr_t)p;
    for (int i = 0; i < MOST; i++)
        if (blocks[i].start && at >= blocks[i].start && at + size <= blocks[i].start + blocks[i].size) return 1;
    return 0;
}

result cuMemcpyHtoDAsync(pointer to, const void *from, size_t size, void *stream) {
    (void)stream;
    return inside(to, size) ? memcpy((void *)(uintptr_t)to, from, size), OK : INVALID;
}

result cuMemcpyDtoHAsync(void *to, pointer from, size_t size, void *stream) {
    (void)stream;
    return inside(from, size) ? memcpy(to, (const void *)(uintptr_t)from, size), OK : INVALID;
}

result cuMemsetD8Async(pointer to, unsigned char value, size_t size, void *stream) {
    (void)stream;
    return inside(to, size) ? memset((void *)(uintptr_t)to, value, size), OK : INVALID;
}

result cuPointerGetAttributes(unsigned count, const int *attributes, void **values, pointer p) {
    for (unsigned i = 0; i < count; i++)  // 2: the kind of memory, a device's or the host's; others: 0
        *(int *)values[i] = attributes[i] == 2 ? (inside(p, 1) ? 2 : 1) : 0;
    return OK;
}

result cuPointerGetAttribute(void *value, int attribute, pointer p) {
    return inside(p, 1) ? cuPointerGetAttributes(1, &attribute, &value, p) : INVALID;
}

// ---- streams and events

result cuStreamSynchronize(void *stream) { return (void)stream, OK; }
result cuStreamIsCapturing(void *stream, int *status) { return (void)stream, *status = 0, OK; }
result cuEventCreate(void **event, unsigned flags) { return (void)flags, *event = calloc(1, sizeof(void *)), OK; }
result cuEventDestroy(void *event) { return free(event), OK; }
result cuEventRecord(void *event, void *stream) { return *(void **)event = stream, OK; }
result cuEventSynchronize(void *event) { return event ? OK : INVALID; }
result cuEventElapsedTime(float *milliseconds, void *first, void *last) {  // each pair is 2 ms apart
    return *milliseconds = 2.0f, first && last && first != last ? OK : INVALID;
}
result cuEventElapsedTime_v2(float *milliseconds, void *first, void *last) {
    return cuEventElapsedTime(milliseconds, first, last);
}
result cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    const size_t used = strlen(waits);
    (void)flags;
    snprintf(waits + used, sizeof waits - used, "%#lx waits for %#lx\n", (long)stream, (long)*(void **)event);
    return OK;
}

// ---- kernels: known by their names alone

result cuLibraryLoadData(void **library, const void *code, void **a, void **b, unsigned c, void **d, void **e,
                         unsigned f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    return memcmp(code, "\177ELF", 4) ? INVALID : (*library = calloc(1, 8), OK);
}
result cuLibraryUnload(void *library) { return free(library), OK; }
result cuLibraryGetKernel(void **kernel, void *library, const char *name) {
    return (void)library, *kernel = strdup(name), OK;
}
result cuKernelSetAttribute(int attribute, int value, void *kernel, int device) {
    (void)kernel, (void)device;
    return attribute == 8 && value > (48 << 10) ? OK : INVALID;
}
result cuLaunchKernelEx(const launch_config *config, void *kernel, void **parameters, void **extra) {
    (void)extra;
    on_launch(kernel, config, parameters);
    return OK;
}
