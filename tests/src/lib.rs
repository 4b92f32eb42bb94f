//! End-to-end tests: whole processes, from outside.
