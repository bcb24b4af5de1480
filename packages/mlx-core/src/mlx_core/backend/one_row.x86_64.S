# cblas_sgemm that sends products of one row to cblas_sgemv, in the System V calling convention.
#
# in:  order edi, transA esi, transB edx, M ecx, N r8d, K r9d, alpha xmm0, beta xmm1,
#      stack: A 8, lda 16, B 24, ldb 32, C 40, ldc 48
# out: order edi, trans esi, m edx, n ecx, A r8, lda r9d, alpha xmm0, beta xmm1,
#      stack: X 8, incX 16, Y 24, incY 32
# The arguments on the stack belong to the callee, so they are rewritten in place and the call becomes a jump.
    .intel_syntax noprefix
    .text
    endbr64
    cmp ecx, 1
    jne gemm
    cmp edi, 101                    # row-major
    jne gemm
    test r9d, r9d                   # K = 0: gemv would leave C as it is
    jz gemm
    mov r10, [rsp + 24]             # B
    mov r11d, [rsp + 32]            # ldb
    mov rax, [rsp + 40]             # C
    mov [rsp + 24], rax             # Y = C
    mov qword ptr [rsp + 32], 1     # incY
    cmp esi, 111                    # A not transposed: its row is contiguous; else X steps by lda, which is there already
    jne strided
    mov qword ptr [rsp + 16], 1     # incX
strided:
    cmp edx, 111
    je plain
    mov esi, 111                    # B is stored [N, K]
    mov edx, r8d
    mov ecx, r9d
    jmp call
plain:
    mov esi, 112                    # B is stored [K, N]
    mov edx, r9d
    mov ecx, r8d
call:
    mov r8, r10
    mov r9d, r11d
    jmp [rip + gemv_address]
gemm:
    jmp [rip + gemm_address]
    .balign 8, 0xcc
gemv_address:
    .quad 0
gemm_address:
    .quad 0
