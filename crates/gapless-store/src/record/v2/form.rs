//! How a value of the core becomes a text's value and back.

use gapless_core::digest::Digest;
use gapless_core::effect::{EffectId, EffectKind, Task};
use gapless_core::event::Failure;
use gapless_core::name::ServiceName;
use gapless_core::node::{GroupId, InstanceId, NodeId};
use gapless_core::notice::RolloutNumber;
use gapless_core::release::{ArtifactVersion, ReleaseNumber};
use gapless_core::route::{Generation, Weight};
use gapless_core::time::Instant;
use gapless_engine::declaration::StopSignal;
use gapless_engine::error::{Error, ErrorKind};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

/// A type that is written down in a form of its own.
pub(in crate::record) trait Form: Sized {
    /// What stands in the text.
    type Text: Serialize + DeserializeOwned;

    fn write(&self) -> Self::Text;

    /// # Errors
    /// When the text is of the right shape and says nothing that can be.
    fn read(text: Self::Text) -> Result<Self, Error>;
}

/// The form of a struct, from the list of all its fields. What came later has its default where an earlier program wrote the text.
macro_rules! form_of_struct {
    ($core:ty { $($field:ident : $type:ty),* $(,)? } $(later { $($new:ident : $new_type:ty),* $(,)? })?) => {
        const _: () = {
            #[derive(serde::Serialize, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            pub struct Text {
                $($field: <$type as $crate::record::v2::Form>::Text,)*
                $($(#[serde(default)] $new: <$new_type as $crate::record::v2::Form>::Text,)*)?
            }

            impl $crate::record::v2::Form for $core {
                type Text = Text;

                fn write(&self) -> Text {
                    type Core = $core;
                    let Core { $($field,)* $($($new,)*)? } = self;
                    Text {
                        $($field: <$type as $crate::record::v2::Form>::write($field),)*
                        $($($new: <$new_type as $crate::record::v2::Form>::write($new),)*)?
                    }
                }

                fn read(text: Text) -> Result<Self, gapless_engine::error::Error> {
                    type Core = $core;
                    Ok(Core {
                        $($field: <$type as $crate::record::v2::Form>::read(text.$field)?,)*
                        $($($new: <$new_type as $crate::record::v2::Form>::read(text.$new)?,)*)?
                    })
                }
            }
        };
    };
}

/// The form of an enum, from the list of all its variants with all their fields. The one value of a variant without names gets one here.
macro_rules! form_of_enum {
    ($core:ty { $($variant:ident $({ $($field:ident : $type:ty),* $(,)? })? $(( $inner:ident : $inner_type:ty ))?),* $(,)? }) => {
        const _: () = {
            #[derive(serde::Serialize, serde::Deserialize)]
            #[serde(deny_unknown_fields)]
            // There is one at a time, on its way to the disk or from it.
            #[allow(clippy::large_enum_variant)]
            pub enum Text {
                $($variant $({ $($field: <$type as $crate::record::v2::Form>::Text),* })? $((<$inner_type as $crate::record::v2::Form>::Text))?),*
            }

            impl $crate::record::v2::Form for $core {
                type Text = Text;

                fn write(&self) -> Text {
                    type Core = $core;
                    match self {
                        $(Core::$variant $({ $($field),* })? $(($inner))? => Text::$variant
                            $({ $($field: <$type as $crate::record::v2::Form>::write($field)),* })?
                            $((<$inner_type as $crate::record::v2::Form>::write($inner)))?),*
                    }
                }

                fn read(text: Text) -> Result<Self, gapless_engine::error::Error> {
                    type Core = $core;
                    Ok(match text {
                        $(Text::$variant $({ $($field),* })? $(($inner))? => Core::$variant
                            $({ $($field: <$type as $crate::record::v2::Form>::read($field)?),* })?
                            $((<$inner_type as $crate::record::v2::Form>::read($inner)?))?),*
                    })
                }
            }
        };
    };
}

pub(super) use {form_of_enum, form_of_struct};

macro_rules! as_it_is {
    ($($type:ty: $write:expr),*) => {
        $(impl Form for $type {
            type Text = $type;

            fn write(&self) -> $type {
                $write(self)
            }

            fn read(text: $type) -> Result<Self, Error> {
                Ok(text)
            }
        })*
    };
}

fn copied<T: Copy>(value: &T) -> T {
    *value
}

as_it_is!(bool: copied, u8: copied, u16: copied, u32: copied, u64: copied, i32: copied, String: Clone::clone, PathBuf: Clone::clone);

macro_rules! as_a_number {
    ($($type:ident: $number:ty),*) => {
        $(impl Form for $type {
            type Text = $number;

            fn write(&self) -> $number {
                self.0
            }

            fn read(text: $number) -> Result<Self, Error> {
                Ok($type(text))
            }
        })*
    };
}

as_a_number!(RolloutNumber: u32, ReleaseNumber: u32, ArtifactVersion: u32, InstanceId: u64, EffectId: u64, Generation: u64, Weight: u16, Instant: u64);

macro_rules! as_its_text {
    ($($type:ty),*) => {
        $(impl Form for $type {
            type Text = String;

            fn write(&self) -> String {
                self.to_string()
            }

            fn read(text: String) -> Result<Self, Error> {
                text.parse::<$type>().map_err(|error| corrupt(&text, &error))
            }
        })*
    };
}

as_its_text!(Digest, GroupId, NodeId, ServiceName);

macro_rules! as_its_name {
    ($($type:ty: $what:literal),*) => {
        $(impl Form for $type {
            type Text = String;

            fn write(&self) -> String {
                self.name().to_string()
            }

            fn read(text: String) -> Result<Self, Error> {
                let known = <$type>::ALL.into_iter().find(|known| known.name() == text);
                known.ok_or_else(|| corrupt(&text, &concat!("not a ", $what)))
            }
        })*
    };
}

as_its_name!(Task: "task", EffectKind: "kind of effect", StopSignal: "signal");

fn corrupt(text: &str, error: &dyn std::fmt::Display) -> Error {
    Error::new(format!("`{text}`: {error}")).kind(ErrorKind::Corrupt)
}

/// In nanoseconds; what does not fit (584 years) is the longest that does.
impl Form for Duration {
    type Text = u64;

    fn write(&self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }

    fn read(text: u64) -> Result<Self, Error> {
        Ok(Duration::from_nanos(text))
    }
}

impl Form for Result<(), Failure> {
    type Text = Option<<Failure as Form>::Text>;

    fn write(&self) -> Self::Text {
        self.as_ref().err().map(Form::write)
    }

    fn read(text: Self::Text) -> Result<Self, Error> {
        Ok(match text {
            Some(failure) => Err(Failure::read(failure)?),
            None => Ok(()),
        })
    }
}

impl<T: Form> Form for Option<T> {
    type Text = Option<T::Text>;

    fn write(&self) -> Self::Text {
        self.as_ref().map(Form::write)
    }

    fn read(text: Self::Text) -> Result<Self, Error> {
        text.map(T::read).transpose()
    }
}

impl<T: Form> Form for Vec<T> {
    type Text = Vec<T::Text>;

    fn write(&self) -> Self::Text {
        self.iter().map(Form::write).collect()
    }

    fn read(text: Self::Text) -> Result<Self, Error> {
        text.into_iter().map(T::read).collect()
    }
}

impl<T: Form + Ord> Form for BTreeSet<T> {
    type Text = Vec<T::Text>;

    fn write(&self) -> Self::Text {
        self.iter().map(Form::write).collect()
    }

    fn read(text: Self::Text) -> Result<Self, Error> {
        text.into_iter().map(T::read).collect()
    }
}

impl<K: Form<Text: Ord> + Ord, V: Form> Form for BTreeMap<K, V> {
    type Text = BTreeMap<K::Text, V::Text>;

    fn write(&self) -> Self::Text {
        self.iter().map(|(key, value)| (key.write(), value.write())).collect()
    }

    fn read(text: Self::Text) -> Result<Self, Error> {
        text.into_iter().map(|(key, value)| Ok((K::read(key)?, V::read(value)?))).collect()
    }
}

impl<A: Form, B: Form> Form for (A, B) {
    type Text = (A::Text, B::Text);

    fn write(&self) -> Self::Text {
        (self.0.write(), self.1.write())
    }

    fn read((one, other): Self::Text) -> Result<Self, Error> {
        Ok((A::read(one)?, B::read(other)?))
    }
}
