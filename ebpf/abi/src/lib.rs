//! What the BPF programs and the user side agree on.
#![no_std]
