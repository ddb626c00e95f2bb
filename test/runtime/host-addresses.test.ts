import { networkInterfaces } from 'node:os'
import { describe, expect, it } from 'vitest'
import { isOfThisHost } from '../../src/runtime/host-addresses.ts'

const own = Object.values(networkInterfaces()).flatMap((of) => of ?? [])

describe('a peer', () => {
  it.each(['unix', '127.0.0.1:40000', '127.9.0.1:1', '[::1]:40000', '[::ffff:127.0.0.1]:40000'])(
    'is of this host: %s',
    (peer) => {
      expect(isOfThisHost(peer)).toBe(true)
    },
  )

  it('is of this host when it has come by an address of its own', () => {
    for (const { address, family } of own)
      expect(isOfThisHost(family === 'IPv6' ? `[${address}]:40000` : `${address}:40000`)).toBe(true)
  })

  it.each(['192.0.2.1:40000', '[2001:db8::1]:40000', '[::ffff:192.0.2.1]:40000', '128.0.0.1:40000', 'nobody:1', ''])(
    'is of another host: %s',
    (peer) => {
      expect(isOfThisHost(peer)).toBe(false)
    },
  )
})
