import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { systemClock } from '../../../src/runtime/clock.ts'
import { type Connection, systemNetwork } from '../../../src/runtime/network.ts'
import { systemRandom } from '../../../src/runtime/random.ts'
import { PeerNetwork } from '../../../src/sheep/peer/peer-network.ts'
import { RECORD_BYTES_MAX, RecordReader, RecordWriter, SealBroken } from '../../../src/sheep/peer/sealed-records.ts'
import { type Direction, Wire } from './wire.ts'

const KEY = Buffer.alloc(32, 1)
const OTHER_KEY = Buffer.alloc(32, 2)

const peersOn = (
  network: Wire | typeof systemNetwork,
  key: Buffer,
  onRefused?: (peer: string, reason: string) => void,
) => new PeerNetwork({ network, clock: systemClock, random: systemRandom, key, ...(onRefused && { onRefused }) })

const settle = () => new Promise<void>((resolve) => setImmediate(resolve))

/** A server that keeps what nodes and others send, and answers nothing. */
async function listen(network: Wire, key = KEY) {
  const heard = { nodes: [] as Buffer[], others: [] as Buffer[], refused: [] as string[], nodesEnded: 0 }
  await peersOn(network, key, (_peer, reason) => heard.refused.push(reason)).listen('server', {
    node: (connection) => {
      connection.onData((chunk) => heard.nodes.push(Buffer.from(chunk)))
      connection.onClose(() => heard.nodesEnded++)
    },
    other: (connection) => connection.onData((chunk) => heard.others.push(chunk)),
  })
  return heard
}

describe('connections between nodes', () => {
  it('carry anything between those who have the key, over a real socket', async () => {
    const echo = peersOn(systemNetwork, KEY)
    const listener = await echo.listen('127.0.0.1:0', {
      node: (connection) => connection.onData((chunk) => connection.write([Buffer.from(chunk)])),
      other: () => {},
    })
    const connection = await peersOn(systemNetwork, KEY).connect(listener.address)
    const sent = systemRandom.bytes(3 * RECORD_BYTES_MAX + 17)
    const back: Buffer[] = []
    const whole = new Promise<Buffer>((resolve) => {
      connection.onData((chunk) => {
        back.push(Buffer.from(chunk))
        if (back.reduce((sum, { length }) => sum + length, 0) === sent.length) resolve(Buffer.concat(back))
      })
    })
    connection.write([sent.subarray(0, 5), sent.subarray(5, 5), sent.subarray(5)])
    expect((await whole).equals(sent)).toBe(true)
    connection.destroy()
    await listener.close()
  })

  it('leave clients of the original protocol as they are', async () => {
    const wire = new Wire()
    const heard = await listen(wire)
    const client = await wire.connect()
    client.write([Buffer.from([1, 2])])
    await settle()
    client.write([Buffer.from([3])])
    await settle()
    expect(Buffer.concat(heard.others)).toEqual(Buffer.from([1, 2, 3]))
    expect(heard.nodes).toEqual([])
  })

  it('are not kept out by a crowd that says nothing, or begins and does not go on', async () => {
    let others = 0
    const listener = await peersOn(systemNetwork, KEY).listen('127.0.0.1:0', {
      node: (connection) => connection.onData((chunk) => connection.write([Buffer.from(chunk)])),
      other: () => others++,
    })
    const crowd: Connection[] = []
    let dropped = 0
    for (let count = 0; count < 300; count++) {
      const connection = await systemNetwork.connect(listener.address)
      connection.onClose(() => dropped++)
      connection.onData(() => {})
      if (count % 2 === 0) connection.write([Buffer.from('COLLIEp1')])
      crowd.push(connection)
    }
    const node = await peersOn(systemNetwork, KEY).connect(listener.address)
    const echoed = new Promise<Buffer>((resolve) => node.onData((chunk) => resolve(Buffer.from(chunk))))
    node.write([Buffer.from('here')])
    expect((await echoed).toString()).toBe('here')
    while (dropped < 300 + 1 - 256) await settle()
    expect(dropped).toBe(300 + 1 - 256)
    expect(others).toBe(0)
    for (const connection of [...crowd, node]) connection.destroy()
    await listener.close()
  })

  it('are refused to who has another key, by either side', async () => {
    const wire = new Wire()
    const heard = await listen(wire)
    await expect(peersOn(wire, OTHER_KEY).connect('server')).rejects.toThrow('server has not the key of this cluster')
    await settle()
    expect(heard.refused).toEqual(['the connection ended before it was proved'])
  })

  it('are refused to who repeats what a node said before', async () => {
    const wire = new Wire()
    const heard = await listen(wire)
    const said: Buffer[] = []
    wire.middle = (direction, chunk) => {
      if (direction === 'to server') said.push(chunk)
      return [chunk]
    }
    const node = await peersOn(wire, KEY).connect('server')
    node.write([Buffer.from('format')])
    await settle()
    wire.middle = (_direction, chunk) => [chunk]
    const thief = await wire.connect()
    for (const chunk of said) {
      thief.write([chunk])
      await settle()
    }
    expect(heard.nodes).toEqual([Buffer.from('format')])
    expect(heard.refused).toEqual(['it has not the key of this cluster'])
  })

  it('end at whatever somebody in the middle does to them, and nothing of that is received', async () => {
    const deeds: ((chunk: Buffer) => Buffer[])[] = [
      (chunk) => [flip(chunk, chunk.length - 1)],
      (chunk) => [flip(chunk, 5)],
      (chunk) => [flip(chunk, 0)],
      (chunk) => [chunk, chunk],
      (chunk) => [chunk.subarray(0, -1), Buffer.from('x')],
      () => [],
    ]
    for (const deed of deeds) {
      const wire = new Wire()
      const heard = await listen(wire)
      const node = await peersOn(wire, KEY).connect('server')
      node.write([Buffer.from('one')])
      await settle()
      wire.middle = (direction: Direction, chunk) => (direction === 'to server' ? deed(chunk) : [chunk])
      node.write([Buffer.from('two')])
      await settle()
      wire.middle = (_direction, chunk) => [chunk]
      node.write([Buffer.from('three')])
      await settle()
      // The second one may be in it when it came as it was, and again.
      expect(['one', 'onetwo']).toContain(Buffer.concat(heard.nodes).toString())
      expect(heard.nodesEnded).toBe(1)
    }
  })
})

describe('records', () => {
  it('come out as they went in, wherever the network cuts them', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 4 }), { maxLength: 6 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 8 }),
        (writes, cuts) => {
          const writer = new RecordWriter(KEY)
          const reader = new RecordReader(KEY)
          const bytes = Buffer.concat(writes.flatMap((buffers) => writer.seal(buffers)))
          const out: Buffer[] = []
          for (let at = 0, turn = 0; at < bytes.length; turn++) {
            const end = Math.min(bytes.length, at + cuts[turn % cuts.length]!)
            reader.read(Buffer.from(bytes.subarray(at, end)), (payload) => out.push(Buffer.from(payload)))
            at = end
          }
          expect(Buffer.concat(out)).toEqual(Buffer.concat(writes.flat()))
        },
      ),
    )
  })

  it('of impossible length are refused before anything is kept for them', () => {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(RECORD_BYTES_MAX + 1)
    expect(() => new RecordReader(KEY).read(length, () => {})).toThrow(SealBroken)
  })
})

function flip(chunk: Buffer, at: number): Buffer {
  const flipped = Buffer.from(chunk)
  flipped[at]! ^= 1
  return flipped
}
