//! Sections of the configuration: each key with its type, in layers of which the uppermost that says something counts.

use serde::{Deserialize, Serialize};

use super::Origin;

/// A name or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Names {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Names {
    pub(crate) fn list(&self) -> Vec<String> {
        match self {
            Self::One(name) => vec![name.clone()],
            Self::Many(names) => names.clone(),
        }
    }
}

/// A key's value as the file words it, and where it came from.
pub(crate) type Line = (String, String, Origin);

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)* } $(with { $($below:ident: $section:ty,)* })?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name { $(pub(crate) $key: Option<$kind>,)* $($(pub(crate) $below: Option<$section>,)*)? }

        impl $name {
            /// What counts of these layers, the lowest first; sections below are left out.
            pub(crate) fn merge(layers: &[(&Self, $crate::config::Origin)]) -> Self {
                Self { $($key: layers.iter().rev().find_map(|(layer, _)| layer.$key.clone()),)* $($($below: None,)*)? }
            }

            /// Every key that says something, with where that came from.
            pub(crate) fn lines(layers: &[(&Self, $crate::config::Origin)], prefix: &str) -> Vec<$crate::config::section::Line> {
                let mut lines = Vec::new();
                $(
                    if let Some((value, origin)) = layers.iter().rev().find_map(|(layer, origin)| layer.$key.as_ref().map(|value| (value, *origin))) {
                        lines.push((format!("{prefix}.{}", stringify!($key)), $crate::config::section::word(value), origin));
                    }
                )*
                lines
            }
        }
    };
}
pub(crate) use section;

/// A value as TOML in one line.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    toml::Value::try_from(value).map(|value| value.to_string()).unwrap_or_default()
}
