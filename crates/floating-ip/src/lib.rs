//! twinsite-floating-ip
