//! twinsite-sim
