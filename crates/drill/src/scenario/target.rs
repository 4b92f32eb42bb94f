//! Whom a step is for: by name, or by role. Owner and leader are those of the moment of the step (the last known ones
//! while there is no quorum); `owner-site` and `other-site` are those of the time before the first step, so that they
//! do not change their meaning in the middle of a drill.

use serde::Deserialize;
use std::fmt;
use twinsite_model::{NodeName, SiteName, UpstreamName};

macro_rules! target {
    ($(#[$doc:meta])* $name:ident($names:ty) { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
        #[serde(try_from = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// This very one.
            Named($names),
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                match text.as_str() {
                    $($word => Ok(Self::$variant),)*
                    other => other.parse().map(Self::Named).map_err(|_| {
                        let words: &[&str] = &[$($word),*];
                        format!("`{other}` is neither a name nor one of {}", words.join(", "))
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($word),)*
                    Self::Named(name) => name.fmt(f),
                }
            }
        }
    };
}

target! {
    /// Nodes.
    NodeTarget(NodeName) {
        /// The owner of the floating address.
        Owner = "owner",
        /// The leader.
        Leader = "leader",
        /// All nodes of the owner's site.
        OwnerSite = "owner-site",
        /// All nodes of the other serving site.
        OtherSite = "other-site",
        /// The witness.
        Witness = "witness",
        /// The owner's site and the witness: with them the quorum is gone.
        Majority = "majority",
        /// Every node.
        All = "all",
        /// Every node that an earlier step has hit.
        Victims = "victims",
        /// Every node that no earlier step has hit.
        Survivors = "survivors",
    }
}

target! {
    /// Sites.
    SiteTarget(SiteName) {
        /// The site of the owner.
        OwnerSite = "owner-site",
        /// The other serving site.
        OtherSite = "other-site",
        /// The site of the witness.
        WitnessSite = "witness-site",
    }
}

target! {
    /// Meeting instances.
    InstanceTarget(UpstreamName) {
        /// The one with the most participants.
        Busiest = "busiest",
        /// All of the owner's site.
        OwnerSite = "owner-site",
        /// All of the other serving site.
        OtherSite = "other-site",
        /// Every one.
        All = "all",
        /// Every one that an earlier step has hit.
        Victims = "victims",
    }
}
