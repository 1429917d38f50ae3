//! Properties that hold for every manifest, checked on the host: see `tests/`.
#![forbid(unsafe_code)]
