"""OPA's WebAssembly ABI on wasmtime; nothing outside imports wasmtime."""
