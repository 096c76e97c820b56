//! Who may use the socket, as the file writes it.

use serde::Deserialize;

/// Permission bits, written in octal as `chmod` takes them: `"0660"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl Default for Mode {
    fn default() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!("mode = \"{text}\": permission bits are octal, \"0\" to \"0777\"")),
        }
    }
}

/// A user of this host, by name or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct User(pub u32);

impl TryFrom<String> for User {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        let known = nix::unistd::User::from_name(&text).ok().flatten();
        known
            .map(|user| Self(user.uid.as_raw()))
            .ok_or_else(|| format!("owner = \"{text}\": no such user on this host"))
    }
}

/// A group of this host, by name or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Group(pub u32);

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Ok(number) = text.parse() {
            return Ok(Self(number));
        }
        let known = nix::unistd::Group::from_name(&text).ok().flatten();
        known
            .map(|group| Self(group.gid.as_raw()))
            .ok_or_else(|| format!("group = \"{text}\": no such group on this host"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_users_and_groups_exist() {
        assert_eq!(Mode::try_from("0660".to_owned()), Ok(Mode(0o660)));
        for bad in ["", "0668", "01777", "rw", "-1"] {
            let reason = format!("mode = \"{bad}\": permission bits are octal, \"0\" to \"0777\"");
            assert_eq!(Mode::try_from(bad.to_owned()), Err(reason));
        }
        assert_eq!(User::try_from("root".to_owned()), Ok(User(0)));
        assert_eq!(Group::try_from("1234".to_owned()), Ok(Group(1234)));
        let nobody = "no body".to_owned();
        assert_eq!(User::try_from(nobody.clone()), Err("owner = \"no body\": no such user on this host".to_owned()));
        assert_eq!(Group::try_from(nobody), Err("group = \"no body\": no such group on this host".to_owned()));
    }
}
