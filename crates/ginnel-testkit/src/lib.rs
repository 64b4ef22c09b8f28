//! What the tests of Ginnel stand on.
