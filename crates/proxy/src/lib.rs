//! twinsite-proxy
