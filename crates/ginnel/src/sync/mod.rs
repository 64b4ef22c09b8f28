//! Permission to go on: semaphores and locks.
