import type { SeededRandom } from '../sim/random.ts'
import type { LiveSheep } from '../tools/live-sheep.ts'
import { frame, type RawRequest, RawSheepClient } from '../tools/raw-sheep-client.ts'

const SYSTEM_ERROR = 0x06
const OWN = 0x0a
/** Opcodes that do something, more often than the others. */
const INTERESTING = [
  ...[0x01, 0x02, 0x03, 0x05, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
  ...[0x01, 0x02, 0x03, 0x01, 0x02, 0x03],
  ...[0x82, 0x84, 0x86, 0x87, 0x89, 0x90, 0x97, 0xa2, 0xab, 0xb1, 0xb4, 0xb8, 0xb9, 0xba, 0xbd, 0xbe],
  ...[0xc6, 0xc9, 0xca, 0xcd],
  ...Array.from({ length: 20 }, (_, i) => 0xd0 + i),
]
const FRAMES_PER_CONNECTION = 20
const BODY_MAX_BYTES = 2000

/**
 * Sends random frames, most of them nearly right. Every one that is whole must be answered with its opcode and id, and never
 * with SYSTEM_ERROR, which stands for a defect of ours. Some connections end in the middle of a frame, and some before
 * they have got their answers.
 */
export async function fuzzFrames(live: LiveSheep, random: SeededRandom, frames: number): Promise<void> {
  const others = live.door.connections
  for (let sent = 0; sent < frames; ) {
    const client = await RawSheepClient.connect(live.address)
    const session = await openSession(live, client, random)
    const requests = Array.from({ length: FRAMES_PER_CONNECTION }, (_, i) =>
      random.chance(0.4) ? rightRequest(live, random, i + 1, session) : randomRequest(live, random, i + 1),
    )
    const waiting = new Map(requests.map((request) => [request.id ?? 0, request]))
    for (const request of requests) client.send(frame(request))
    const leavesEarly = random.chance(0.2)
    while (waiting.size > 0 && !leavesEarly) {
      const { id, opcode, result } = await client.receive()
      const request = waiting.get(id)
      if (request?.opcode !== opcode) throw new Error(`an answer to nothing: opcode ${opcode}, id ${id}`)
      if (result === SYSTEM_ERROR) throw new Error(`SYSTEM_ERROR for ${frame(request).toString('hex')}`)
      waiting.delete(id)
    }
    if (random.chance(0.5)) client.send(frame(randomRequest(live, random, 0)).subarray(0, random.below(60)))
    client.close()
    sent += requests.length
  }
  // What a connection has left unanswered is done at some time, and then nothing is kept for it.
  const left = () => live.door.connections - others + live.door.leavingConnections + live.door.commonBytes
  while (left() > 0) await new Promise(setImmediate)
}

/** One of the VDIs that the frames themselves have made; 0 when there is none. */
function ownVid(live: LiveSheep, random: SeededRandom): number {
  return random.pick([...live.sheep.state.vdis.values()].filter(({ name }) => name.startsWith('fuzz')))?.vid ?? 0
}

/** The session that the connection has on some VDI; 0 when there is none to open. */
async function openSession(live: LiveSheep, client: RawSheepClient, random: SeededRandom): Promise<number> {
  const vid = ownVid(live, random)
  const { header } = await client.request({ opcode: 0xd0, protoVer: OWN, fields: [[16, 4, vid]] })
  return header.readUInt32LE(20)
}

/** A frame whose fields stand where they belong, so that it gets as far as the VDI: at most one of them is odd. */
function rightRequest(live: LiveSheep, random: SeededRandom, id: number, session: number): RawRequest {
  const io = (opcode: number, offset: number, length: number, rest: Partial<RawRequest> = {}): RawRequest => ({
    opcode,
    id,
    protoVer: OWN,
    fields: [
      [20, 4, session],
      [24, 8, offset],
      [32, 4, length],
    ],
    ...rest,
  })
  const offset = random.chance(0.9) ? random.below(9000) : randomWord(live, random)
  const length = random.chance(0.9) ? random.below(9000) : randomWord(live, random)
  const vid = ownVid(live, random)
  return random.pick<() => RawRequest>([
    () => io(0xd2, offset, length, { dataLength: random.chance(0.9) ? length : randomWord(live, random) }),
    () =>
      io(0xd3, offset, 0, { flags: random.chance(0.8) ? 1 : 0x201, body: random.bytes(random.below(BODY_MAX_BYTES)) }),
    () => io(0xd4, offset, length),
    () => io(0xd5, offset, length),
    () => io(0xd6, 0, 0),
    () => io(0xd7, offset, length, { dataLength: 4096 }),
    () => ({
      opcode: 0x11,
      id,
      protoVer: 1,
      flags: 1,
      body: vdiName(random),
      fields: [[16, 8, random.below(2 ** 24)]],
    }),
    () => ({ opcode: 0x17, id, protoVer: 1, flags: 1, body: vdiName(random) }),
    () => ({ opcode: 0xdc, id, protoVer: OWN, flags: 1, body: vdiName(random), fields: [[16, 4, vid]] }),
  ])()
}

const vdiName = (random: SeededRandom) => Buffer.concat([Buffer.from(`fuzz-${random.below(20)}`)], 512)

function randomRequest(live: LiveSheep, random: SeededRandom, id: number): RawRequest {
  const opcode = random.chance(0.9) ? random.pick(INTERESTING) : random.below(256)
  const hasBody = random.chance(0.6)
  const words = Array.from({ length: 8 }, (_, i) => [16 + 4 * i, 4, randomWord(live, random)] as const)
  const fields = opcode < 0x10 && random.chance(0.8) ? randomObject(live, random) : words
  return {
    opcode,
    id,
    protoVer: random.chance(0.9) ? (opcode < 0x80 ? 1 : OWN) : random.below(256),
    flags: (hasBody ? 1 : 0) | (random.chance(0.3) ? 0x10 : 0) | (random.chance(0.1) ? random.below(0x1000) & ~1 : 0),
    fields,
    ...(hasBody ? { body: randomBody(live, random) } : { dataLength: random.pick([0, 8, 4096, 2 ** 21, 2 ** 32 - 1]) }),
  }
}

/** An object of some kind, mostly of a VDI that there is, and where in it: mostly at borders of its parts. */
function randomObject(live: LiveSheep, random: SeededRandom) {
  const kind = random.pick([0, 0, 0, 0x80, 0x80, 0x80, 0x40, 0x20, 0x10, 0x08, 0x01])
  const vid = random.pick([...live.sheep.state.vdis.keys(), 0, 0xffffff])
  const index = kind === 0 || random.chance(0.3) ? random.pick([0, 0, 1, 2, 2 ** 20, 2 ** 32 - 1]) : 0
  const offset = random.pick([0, 0, 256, 512, 536, 544, 4664, 4664, 4668, 4670, 4198968, 2 ** 22 - 512, 2 ** 32 - 1])
  return [
    [16, 4, index],
    [20, 4, kind * 2 ** 24 + vid],
    [40, 4, offset],
  ] as const
}

/** Small numbers, vids that there are, and extremes. */
function randomWord(live: LiveSheep, random: SeededRandom): number {
  const vids = [...live.sheep.state.vdis.keys()]
  return random.pick([0, 0, 0, 1, random.below(50), random.pick(vids) ?? 0, 4096, 2 ** 22, 2 ** 31, 2 ** 32 - 1])
}

function randomBody(live: LiveSheep, random: SeededRandom): Buffer {
  const vdi = random.pick([...live.sheep.state.vdis.values()])
  const right = { attachmentId: 'a', nameHash: 'ab'.repeat(32), vid: vdi?.vid ?? 0, readOnly: true }
  return random.pick([
    () => random.bytes(random.below(BODY_MAX_BYTES)),
    () => Buffer.concat([Buffer.from(vdi?.name ?? 'fuzz')], 256),
    () => vdiName(random),
    () => Buffer.from('ab'.repeat(32)),
    () => Buffer.alloc(4 * random.below(20)),
    () => Buffer.from(Uint32Array.from({ length: 1 + random.below(4) }, () => vdi?.vid ?? 0).buffer),
    () => attribute(vdi?.name ?? 'fuzz', random),
    () => Buffer.from(JSON.stringify(random.chance(0.5) ? right : { ...right, vid: 'x' })),
  ])()
}

function attribute(name: string, random: SeededRandom): Buffer {
  const body = Buffer.alloc(66320)
  body.write(name, 0)
  body.write(`key-${random.below(5)}`, 528)
  body.writeUInt32LE(random.pick([0, 1, 4096, 65536, 65537]), 524)
  return body
}
