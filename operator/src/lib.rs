//! The operator as a library: what its binary and its tests share.
