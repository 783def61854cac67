/* `bcryptprimitives.dll`: Rust's standard library imports it, and older versions of Wine lack it. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *to, SIZE_T left) {
    while (left > 0) {
        ULONG part = left > 0x10000000 ? 0x10000000 : (ULONG)left;
        if (!SystemFunction036(to, part)) return FALSE;
        to += part;
        left -= part;
    }
    return TRUE;
}
