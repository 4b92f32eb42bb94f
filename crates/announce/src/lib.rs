//! twinsite-announce
