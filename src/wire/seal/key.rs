//! The keys of nodes: a secret one that stays on its machine, a public one that the cluster file lists.

use std::fmt;

use sha2::{Digest as _, Sha256};
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

/// How many bytes a key has, secret or public.
pub const KEY_LEN: usize = 32;

/// What a key file begins with, so that nobody takes the one kind of key for the other.
const SECRET_PREFIX: &str = "tenure-secret-key:";

/// Why a text is not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A secret key where a public one belongs.
    #[error(
        "this is a secret key, and whoever reads this file knows it now: make another with `tenure \
         keys new`, and list what it prints"
    )]
    Secret,
    /// A public key with which everybody has the same secret, or which is written in an unusual way.
    #[error("no secret key has this public key: list what `tenure keys show` prints")]
    Weak,
    /// A public key is written otherwise.
    #[error("a public key is 64 hexadecimal digits: list what `tenure keys show` prints")]
    Public,
    /// A key file has another content.
    #[error(
        "a key file has one line, \"{SECRET_PREFIX}\" and 64 hexadecimal digits: make one with \
         `tenure keys new`"
    )]
    File,
}

/// A key that only its node knows (X25519, RFC 7748). Its debug output shows the public key alone, and its memory
/// is wiped when it is dropped.
#[derive(Clone)]
pub struct SecretKey(StaticSecret);

impl SecretKey {
    /// A key from 32 bytes that nobody can guess.
    pub fn from_random(bytes: [u8; KEY_LEN]) -> Self {
        Self(StaticSecret::from(bytes))
    }

    /// Reads what [`SecretKey::to_text`] has written.
    ///
    /// # Errors
    ///
    /// [`KeyError::File`].
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let digits = text.trim_end().strip_prefix(SECRET_PREFIX).ok_or(KeyError::File)?;
        let bytes = Zeroizing::new(from_hex(digits).ok_or(KeyError::File)?);
        Ok(Self(StaticSecret::from(*bytes)))
    }

    /// The content of a key file: one line.
    pub fn to_text(&self) -> Zeroizing<String> {
        let digits = Zeroizing::new(to_hex(self.0.as_bytes()));
        Zeroizing::new(format!("{SECRET_PREFIX}{}\n", *digits))
    }

    /// What others need to know of it.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::PublicKey::from(&self.0).to_bytes())
    }

    /// The secret that this node shares with the owner of that key; none if everybody would know it.
    pub(super) fn shared_with(&self, other: &PublicKey) -> Option<x25519_dalek::SharedSecret> {
        let shared = self.0.diffie_hellman(&other.0.into());
        shared.was_contributory().then_some(shared)
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// What the cluster file lists of a node's key: a point of Curve25519 in its one canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; KEY_LEN]);

impl PublicKey {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// [`KeyError::Secret`], [`KeyError::Public`], or [`KeyError::Weak`] for a point of low order, whose secrets
    /// anybody can compute, and for a second way to write a point, which would hide that two keys are one.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if is_secret(text) {
            return Err(KeyError::Secret);
        }
        let key = Self(from_hex(text).ok_or(KeyError::Public)?);
        // Any secret will do: each is a multiple of the order that is to be found out.
        let any = SecretKey::from_random([1; KEY_LEN]);
        if !key.is_canonical() || any.shared_with(&key).is_none() {
            return Err(KeyError::Weak);
        }
        Ok(key)
    }

    /// Whether it is below 2^255 - 19, and the bit that RFC 7748 lets readers ignore is not set.
    fn is_canonical(&self) -> bool {
        let [first, middle @ .., last] = &self.0;
        let is_above = *last == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *first >= 0xed;
        *last < 0x80 && !is_above
    }

    /// A short name of the key for people: the first 8 digits of its hash.
    pub fn name(&self) -> String {
        to_hex(&Sha256::digest(self.0)[..4])
    }

    pub(super) fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;

    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<[u8; KEY_LEN]> {
    if text.len() != 2 * KEY_LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; KEY_LEN];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Whether this text holds a secret, wherever it should have held something else.
pub fn is_secret(text: &str) -> bool {
    text.contains(SECRET_PREFIX)
}

/// The text, with dots for what stands behind the name of a secret on its line.
pub fn without_secrets(text: &str) -> String {
    let mut parts = text.split(SECRET_PREFIX);
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let line = part.find('\n').unwrap_or(part.len());
        told = told + SECRET_PREFIX + "..." + &part[line..];
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7748, section 6.1: the keys of Alice and Bob, and what they share.
    #[test]
    fn two_keys_share_what_the_standard_says() {
        let secret =
            |digits: &str| SecretKey::parse(&format!("{SECRET_PREFIX}{digits}\n")).unwrap();
        let alice = secret("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let bob = secret("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
        let public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
        assert_eq!(alice.public().to_string(), public);
        let shared = alice.shared_with(&bob.public()).unwrap();
        let expected = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
        assert_eq!(to_hex(shared.as_bytes()), expected);
        assert_eq!(bob.shared_with(&alice.public()).unwrap().as_bytes(), shared.as_bytes());
    }

    //= SPEC SEAL-7 test
    #[test]
    fn nothing_but_the_key_file_shows_a_secret() {
        let key = SecretKey::from_random([7; KEY_LEN]);
        let text = key.to_text();
        let digits = text.trim_end().strip_prefix(SECRET_PREFIX).unwrap();
        assert_eq!(digits, "07".repeat(KEY_LEN));
        assert!(!format!("{key:?} {key:#?}").contains("0707"), "{key:?}");
        assert_eq!(SecretKey::parse(&text).unwrap().public(), key.public());
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let good = SecretKey::from_random([7; KEY_LEN]);
        let public = good.public().to_string();
        assert_eq!(PublicKey::parse(&public), Ok(good.public()));
        assert_eq!(PublicKey::parse(&public.to_uppercase()), Ok(good.public()));
        let secret = good.to_text();
        for (text, expected) in [
            ("", KeyError::Public),
            (&public[1..], KeyError::Public),
            (&format!("{public}0"), KeyError::Public),
            (&format!("+{}", &public[1..]), KeyError::Public),
            (&"é".repeat(KEY_LEN), KeyError::Public),
            (&secret, KeyError::Secret),
        ] {
            assert_eq!(PublicKey::parse(text), Err(expected), "{text}");
        }
        for text in ["", "tenure-secret-key:", &secret[1..], &public] {
            assert_eq!(SecretKey::parse(text).err(), Some(KeyError::File), "{text}");
        }
    }

    /// The points of low order, and second ways to write a point: of Curve25519, RFC 7748, section 6.1 and 7.
    #[test]
    fn a_point_that_gives_everybody_one_secret_is_refused() {
        let p_minus_1 = format!("ec{}7f", "ff".repeat(30));
        let p = format!("ed{}7f", "ff".repeat(30));
        let p_plus_1 = format!("ee{}7f", "ff".repeat(30));
        let nine_again = format!("f6{}7f", "ff".repeat(30));
        let nine_with_the_high_bit = format!("09{}80", "00".repeat(30));
        for text in [
            "00".repeat(32),
            format!("01{}", "00".repeat(31)),
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800".to_owned(),
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157".to_owned(),
            p_minus_1,
            p,
            p_plus_1,
            nine_again,
            nine_with_the_high_bit,
        ] {
            assert_eq!(PublicKey::parse(&text), Err(KeyError::Weak), "{text}");
        }
    }
}
