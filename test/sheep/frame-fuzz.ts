import type { SeededRandom } from '../sim/random.ts'
import type { LiveSheep } from '../tools/live-sheep.ts'
import { frame, type RawRequest, RawSheepClient } from '../tools/raw-sheep-client.ts'

const SYSTEM_ERROR = 0x06
const OWN = 0x0a
/** Opcodes that do something, more often than the others. */
const INTERESTING = [0x11, 0x14, 0x15, 0x17, 0x18, 0x86, 0xc9, ...Array.from({ length: 15 }, (_, i) => 0xd0 + i)]
const FRAMES_PER_CONNECTION = 20
const BODY_MAX_BYTES = 2000

/**
 * Sends random frames, most of them nearly right. Every one that is whole must be answered with its opcode and id, and never
 * with SYSTEM_ERROR, which stands for a defect of ours. Some connections end in the middle of a frame.
 */
export async function fuzzFrames(live: LiveSheep, random: SeededRandom, frames: number): Promise<void> {
  for (let sent = 0; sent < frames; ) {
    const client = await RawSheepClient.connect(live.address)
    const requests = Array.from({ length: FRAMES_PER_CONNECTION }, (_, i) => randomRequest(live, random, i + 1))
    const waiting = new Map(requests.map((request) => [request.id ?? 0, request]))
    for (const request of requests) client.send(frame(request))
    while (waiting.size > 0) {
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
}

function randomRequest(live: LiveSheep, random: SeededRandom, id: number): RawRequest {
  const opcode = random.chance(0.9) ? random.pick(INTERESTING) : random.below(256)
  const hasBody = random.chance(0.6)
  const fields = Array.from({ length: 8 }, (_, i) => [16 + 4 * i, 4, randomWord(live, random)] as const)
  return {
    opcode,
    id,
    protoVer: random.chance(0.9) ? (opcode < 0x80 ? 1 : OWN) : random.below(256),
    flags: (hasBody ? 1 : 0) | (random.chance(0.3) ? 0x10 : 0) | (random.chance(0.1) ? random.below(0x1000) & ~1 : 0),
    fields,
    ...(hasBody ? { body: randomBody(live, random) } : { dataLength: random.pick([0, 8, 4096, 2 ** 21, 2 ** 32 - 1]) }),
  }
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
    () => Buffer.concat([Buffer.from(`fuzz-${random.below(20)}`)], 512),
    () => Buffer.from('ab'.repeat(32)),
    () => Buffer.from(JSON.stringify(random.chance(0.5) ? right : { ...right, vid: 'x' })),
  ])()
}
