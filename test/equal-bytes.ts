import { expect } from 'vitest'

/** Bytes are compared as such: the equality of `expect` would go through them one by one, which took most of the time of tests of disks. */
expect.addEqualityTesters([
  (one: unknown, other: unknown) =>
    one instanceof Uint8Array && other instanceof Uint8Array && one.constructor === other.constructor
      ? Buffer.compare(one, other) === 0
      : undefined,
])
