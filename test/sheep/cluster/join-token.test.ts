import { describe, expect, it } from 'vitest'
import {
  corosyncKey,
  createClusterSecret,
  decodeKeyFile,
  encodeKeyFile,
} from '../../../src/sheep/cluster/cluster-secret.ts'
import { decodeJoinToken, encodeJoinToken } from '../../../src/sheep/cluster/join-token.ts'
import { SeededRandom } from '../../sim/random.ts'

const secret = createClusterSecret(null, new SeededRandom(1))
const nodes = [
  { id: 1, address: '192.0.2.1' },
  { id: 4, address: 'host.example.org' },
]

describe('the secret of a cluster', () => {
  it('is in a file, as it is', () => {
    expect(secret.name).toMatch(/^collie-[0-9a-f]{8}$/)
    expect(decodeKeyFile(encodeKeyFile(secret))).toEqual(secret)
    expect(() => decodeKeyFile('')).toThrow('no key file')
    expect(() => decodeKeyFile('cluster a\nkey AAAA\n')).toThrow('the key has 3 bytes, not 32')
    expect(() => createClusterSecret('a b', new SeededRandom(1))).toThrow('no name of a cluster')
  })

  it('makes the key of corosync, always the same and telling nothing of it', () => {
    const key = corosyncKey(secret)
    expect(key).toHaveLength(256)
    expect(corosyncKey(decodeKeyFile(encodeKeyFile(secret)))).toEqual(key)
    expect(key.includes(secret.key)).toBe(false)
    expect(corosyncKey(createClusterSecret(null, new SeededRandom(2))).equals(key)).toBe(false)
  })
})

describe('a join token', () => {
  const byCorosync = { secret, cluster: 'corosync', corosync: { port: 5405, nodes } }
  const byEtcd = { secret, cluster: 'etcds://me:secret@192.0.2.9:2379/one', corosync: null }

  it.each([[byCorosync], [byEtcd]])('has all that a node needs', (info) => {
    const token = encodeJoinToken(info)
    expect(token).toMatch(/^collie-join-1\.[\w-]+$/)
    expect(decodeJoinToken(`${token}\n`)).toEqual(info)
  })

  it('is refused when it is none, is cut short, or was made up', () => {
    const token = encodeJoinToken(byCorosync)
    expect(() => decodeJoinToken('word')).toThrow(/no join token/)
    expect(() => decodeJoinToken(token.slice(0, -40))).toThrow(/damaged/)
    const made = encodeJoinToken({ ...byCorosync, corosync: { port: 5405, nodes: [{ id: 1, address: 'a\nb' }] } })
    expect(() => decodeJoinToken(made)).toThrow(/damaged/)
  })
})
