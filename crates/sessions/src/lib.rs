//! twinsite-sessions
