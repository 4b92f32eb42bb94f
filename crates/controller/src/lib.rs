//! twinsite-controller
