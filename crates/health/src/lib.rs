//! twinsite-health
