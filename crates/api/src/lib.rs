//! twinsite-api
