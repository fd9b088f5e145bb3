/* The inner loop of record_reader.py: records read and their heads parsed, many in a call, without Python's lock.

In:  open files, and each record's place in its file.  Out: the records' bytes, and what their heads say.

Only records of the fields that datum.encode writes, in its order, which fit the set, are understood. At any other, or one that cannot be
read, or whose file was written to since it was opened, the call ends; record_reader.py reads that one and says what is
wrong. Plain C, called through ctypes. Where it was not compiled, record_reader.py reads them all. */

#include "../compiled.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEIGHT, WIDTH, LABEL, START, LENGTH, FIELDS }; /* of a record; where its payload starts, and its length */
enum { ENCODED, LOWEST_LABEL, CLASSES, SIZE, SQUARE }; /* of the set */

/* A protobuf number; the byte after it, or 0 if it does not end. */
static const uint8_t *number(const uint8_t *at, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (int shift = 0; shift < 64 && at < end; shift += 7) {
        const uint8_t byte = *at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return at;
    }
    return 0;
}

/* Channels, height, width, data, label, encoded: each once, in this order, and nothing else. */
static int parsed(const uint8_t *record, int64_t length, const int64_t *set, int64_t *fields) {
    static const uint8_t tags[6] = {0x08, 0x10, 0x18, 0x22, 0x28, 0x38};
    const uint8_t *at = record, *end = record + length, *data = 0;
    uint64_t values[6];
    for (int k = 0; k < 6; k++) {
        if (at == end || *at++ != tags[k] || !(at = number(at, end, &values[k]))) return 0;
        if (tags[k] != 0x22) continue;
        if (values[k] > (uint64_t)(end - at)) return 0;
        data = at;
        at += values[k];
    }
    const uint64_t height = values[1], width = values[2], bytes = values[3], least = height < width ? height : width;
    const int64_t label = (int32_t)values[4];
    if (at != end || values[0] != 3 || height >= 1 << 16 || width >= 1 << 16) return 0;
    if (least != (uint64_t)set[SIZE] || (set[SQUARE] && height != width)) return 0;
    if (label < set[LOWEST_LABEL] || label >= set[CLASSES] || (values[5] != 0) != set[ENCODED]) return 0;
    if (set[ENCODED] ? bytes < 2 || data[0] != 0xff || data[1] != 0xd8 : bytes != 3 * height * width) return 0;
    fields[HEIGHT] = height;
    fields[WIDTH] = width;
    fields[LABEL] = label;
    fields[START] = data - record;
    fields[LENGTH] = bytes;
    return 1;
}

static int is_read(int handle, int64_t offset, int64_t length, uint8_t *out) {
    while (length > 0) {
        const ssize_t count = pread(handle, out, length, offset);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) return 0;
        out += count;
        offset += count;
        length -= count;
    }
    return 1;
}

static int is_unchanged(int handle, const int64_t *opened) {
    struct stat now;
    return !fstat(handle, &now) && now.st_size == opened[0] &&
           now.st_mtim.tv_sec * INT64_C(1000000000) + now.st_mtim.tv_nsec == opened[1];
}

/* Records from `first` on. Record k is in file `numbers[k]`, at offset `places[2 * k]`, `places[2 * k + 1]` bytes long;
`opened`: of each file, size and time of change in nanoseconds. `out`: all records in turn, those before `first` too.
`fields`: (count, FIELDS), START counts from the first byte of `out`. Returns the number of records that are done. */
int64_t read_records(int64_t first, int64_t count, const int64_t *numbers, const int64_t *places,
                     const int32_t *handles, const int64_t *opened, const int64_t *set, uint8_t *out,
                     int64_t *fields) {
    int64_t start = 0;
    for (int64_t k = 0; k < count; k++) {
        const int64_t offset = places[2 * k], length = places[2 * k + 1];
        if (k >= first) {
            const int handle = handles[numbers[k]];
            if (!is_read(handle, offset, length, out + start) || !is_unchanged(handle, opened + 2 * numbers[k]) ||
                !parsed(out + start, length, set, fields + FIELDS * k))
                return k;
            fields[FIELDS * k + START] += start;
        }
        start += length;
    }
    return count;
}
