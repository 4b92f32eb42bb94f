//! Unit and property tests of `State::apply` live here.
