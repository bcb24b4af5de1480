// cblas_sgemm that sends products of one row to cblas_sgemv, in the AAPCS64 calling convention.
//
// in:  order w0, transA w1, transB w2, M w3, N w4, K w5, A x6, lda w7, alpha s0, beta s1,
//      stack: B 0, ldb 8, C 16, ldc 24
// out: order w0, trans w1, m w2, n w3, A x4, lda w5, X x6, incX w7, alpha s0, beta s1,
//      stack: Y 0, incY 8
// The arguments on the stack belong to the callee, so they are rewritten in place and the call becomes a jump.
    .text
    hint #34                        // bti c
    cmp w3, #1
    b.ne gemm
    cmp w0, #101                    // row-major
    b.ne gemm
    cbz w5, gemm                    // K = 0: gemv would leave C as it is
    ldr x10, [sp]                   // B
    ldr w11, [sp, #8]               // ldb
    ldr x12, [sp, #16]              // C
    mov x9, #1
    str x12, [sp]                   // Y = C
    str x9, [sp, #8]                // incY
    cmp w1, #111                    // A not transposed: its row is contiguous; else X steps by lda
    csel w7, w9, w7, eq
    cmp w2, #111
    b.eq plain
    mov w1, #111                    // B is stored [N, K]
    mov w2, w4
    mov w3, w5
    b call
plain:
    mov w1, #112                    // B is stored [K, N]
    mov w2, w5
    mov w3, w4
call:
    mov x4, x10
    mov w5, w11
    ldr x16, gemv_address
    br x16
gemm:
    ldr x16, gemm_address
    br x16
    .balign 8
gemv_address:
    .quad 0
gemm_address:
    .quad 0
