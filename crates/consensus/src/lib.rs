//! twinsite-consensus
