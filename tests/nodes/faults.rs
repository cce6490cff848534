//! Redis is slow, away, emptied, killed; connections of it are cut. What every player sees all the same.
