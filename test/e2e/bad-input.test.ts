import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type net from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { Result } from '../../src/control/methods.ts'
import { SeededRandom } from '../sim/random.ts'
import { CinderApi, type Connected } from '../tools/cinder-api.ts'
import { Collie, printLogOfFailures, runCollie } from '../tools/collie.ts'
import { connectSocket, NbdClient } from '../tools/nbd-client.ts'

/** The whole process against whatever arrives at its doors; beside it one client goes on as if nothing were. */

const MIB = 1024 * 1024
const CONTENT = randomBytes(4 * MIB)
const CONTENT_OFFSET = 6 * MIB

let collie: Collie
let api: CinderApi
let attached: Connected
let witness: NbdClient

beforeAll(async () => {
  collie = await Collie.create()
  await collie.start()
  api = new CinderApi(`${collie.dataDir}/openrc`)
  const volumeId = await api.createVolume()
  await api.until('volume', volumeId, 'available')
  attached = await api.attach(volumeId)
  witness = await NbdClient.connect(attached.address, attached.name)
  await witness.write(CONTENT_OFFSET, CONTENT)
})
printLogOfFailures(() => collie)

afterEach(async () => {
  expect(collie.isRunning).toBe(true)
  expect((await witness.read(CONTENT_OFFSET, CONTENT.length)).equals(CONTENT)).toBe(true)
  expect((await api.list('volume')).map(({ id, status }) => [id, status])).toEqual([[attached.volumeId, 'in-use']])
})

afterAll(async () => {
  await witness.disconnect()
  const audit = await collie.ask<Result<'audit'>>('cluster', 'audit')
  expect(audit.findings).toEqual([])
  expect(await collie.kill('SIGTERM')).toBe(0)
  await collie.dispose()
})

/** Every socket that the process listens on. */
const DOORS = ['api', 'sheep', 'sheep_socket', 'nbd', 'nbd_socket', 'control'] as const
type Door = (typeof DOORS)[number]

async function knock(door: Door): Promise<net.Socket> {
  const { addresses } = collie.info
  const address = door === 'control' ? `${collie.dataDir}/control.sock` : addresses[door]!
  const socket = await connectSocket(door === 'api' ? new URL(address).host : address)
  socket.on('error', () => {}) // a reset is an answer, too
  socket.resume()
  return socket
}

const closed = (socket: net.Socket) =>
  socket.closed ? Promise.resolve() : new Promise<void>((resolve) => socket.once('close', () => resolve()))

/** Memory that the process has, in MiB. */
function residentMib(): number {
  const status = readFileSync(`/proc/${collie.info.pid}/status`, 'utf8')
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) / 1024
}

describe('noise', () => {
  it.each(DOORS)('of random bytes at the door %s ends that connection only', async (door) => {
    const random = new SeededRandom(DOORS.indexOf(door) + 1)
    for (let i = 0; i < 40; i++) {
      const socket = await knock(door)
      for (let chunk = 0; chunk < 3; chunk++) socket.write(random.bytes(1 + random.below(5000)))
      socket.end()
      await closed(socket)
    }
  })

  it.each<[Door, string, Buffer]>([
    ['sheep', 'a body of 4 GiB', sheepHeader({ opcode: 0x03, flags: 1, dataLength: 0xffff_ffff })],
    ['nbd', 'an option of 4 GiB', Buffer.from('\0\0\0\x03IHAVEOPT\0\0\0\x07\xff\xff\xff\xff', 'latin1')],
    ['control', 'no JSON', Buffer.from('{"id":1,"method":\n')],
    ['control', 'no message', Buffer.from('[1,2,3]\n')],
  ])('at the door %s, %s, ends that connection', async (door, _what, bytes) => {
    const socket = await knock(door)
    socket.write(bytes)
    await closed(socket)
  })

  it('of a wish to read 4 GiB is answered with a refusal', async () => {
    const socket = await knock('sheep')
    const answer = new Promise<Buffer>((resolve) => socket.once('data', resolve))
    const request = sheepHeader({ opcode: 0xd2, flags: 0, dataLength: 0xffff_ffff })
    request.writeUInt32LE(0xffff_ffff, 32)
    socket.write(request)
    const header = await answer
    expect(header).toHaveLength(48)
    expect(header.readUInt32LE(16)).not.toBe(0) // the result
    socket.destroy()
  })

  it('of connections that say nothing, or half of something, keeps nobody waiting', async () => {
    const halves: Record<Door, string> = {
      api: 'GET /v3/volumes HTTP/1.1\r\nhost: x\r\n',
      sheep: '\x02\x85',
      sheep_socket: '\xd0',
      nbd: '\0\0\0\x03IHAVEO',
      nbd_socket: '\0\0',
      control: '{"id":1,',
    }
    const sockets: net.Socket[] = []
    for (const door of DOORS) {
      for (let i = 0; i < 40; i++) {
        const socket = await knock(door)
        if (i % 2 === 0) socket.write(halves[door], 'latin1')
        sockets.push(socket)
      }
    }
    const another = await NbdClient.connect(attached.address, attached.name)
    expect((await another.read(CONTENT_OFFSET, 4096)).equals(CONTENT.subarray(0, 4096))).toBe(true)
    await another.disconnect()
    expect(await api.attachments()).toHaveLength(1)
    expect(await collie.ask<object>('node', 'info')).toEqual(collie.info)
    for (const socket of sockets) socket.destroy()
  })

  it('of promises to send much takes no memory', async () => {
    const before = residentMib()
    const nbdWrite = Buffer.alloc(28)
    nbdWrite.write('25609513', 'hex')
    nbdWrite.writeUInt16BE(1, 6)
    nbdWrite.writeUInt32BE(32 * MIB, 24)
    const openExport = Buffer.from(`\0\0\0\x03IHAVEOPT\0\0\0\x01\0\0\0\x30${attached.name}`, 'latin1')
    const promises: [Door, Buffer][] = [
      ['nbd', Buffer.concat([openExport, nbdWrite])],
      ['sheep', sheepHeader({ opcode: 0xd3, flags: 1, dataLength: 4 * MIB })],
    ]
    const sockets: net.Socket[] = []
    for (const [door, promise] of promises) {
      for (let i = 0; i < 64; i++) {
        const socket = await knock(door)
        socket.write(promise)
        socket.write(randomBytes(1000))
        sockets.push(socket)
      }
    }
    const connections = async () => (await collie.ask<Result<'stats'>>('node', 'stats')).nbd!.connections
    while ((await connections()) !== 64 + 1);
    expect(residentMib() - before).toBeLessThan(300) // 2.2 GiB were announced
    for (const socket of sockets) socket.destroy()
  })
})

describe('the API', () => {
  const json = { 'content-type': 'application/json' }

  /** Sends what fetch would refuse to. */
  async function send(method: string, path: string, headers: http.OutgoingHttpHeaders, body: string | Buffer) {
    const url = `${collie.info.addresses.api}${path}`
    const answer = await new Promise<http.IncomingMessage>((resolve, reject) => {
      const request = http.request(url, { method, agent: false, headers }, resolve)
      request.on('error', reject)
      request.end(body)
    })
    return { status: answer.statusCode, body: await text(answer) }
  }

  async function withToken(): Promise<Record<string, string>> {
    return { ...json, 'x-auth-token': await api.token() }
  }

  it.each<[string, () => string | Buffer, number]>([
    ['200 KiB of text', () => JSON.stringify({ volume: { size: 1, name: 'x'.repeat(200 * 1024) } }), 413],
    ['100 000 brackets', () => '['.repeat(100_000), 400],
    ['10 000 objects in each other', () => `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`, 400],
    ['half of a body', () => '{"volume": {"size": 1', 400],
    [
      'bytes that are no text',
      () => Buffer.from('{"volume": {"size": 1, "name": "\xff\xfe"}}', 'latin1').subarray(0, 34),
      400,
    ],
    ['a size beyond all numbers', () => '{"volume": {"size": 1e400}}', 400],
    ['a size below all disks', () => '{"volume": {"size": -1}}', 400],
    ['a list', () => '[]', 400],
    ['nothing', () => '', 400],
  ])('answers a body of %s with a fault', async (_what, body, status) => {
    const answer = await send('POST', '/volumes', await withToken(), body())
    expect(answer.status).toBe(status)
    const [fault] = Object.values(JSON.parse(answer.body)) as [{ code: number; message: string }]
    expect(fault).toMatchObject({ code: status, message: expect.stringMatching(/./) })
    expect(answer.body).not.toMatch(/node_modules|\.[jt]s:\d/)
  })

  it('stops reading a body of 64 MiB', async () => {
    const socket = await knock('api')
    const head = `POST /v3/volumes HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-auth-token: ${await api.token()}\r\n`
    socket.write(`${head}content-length: ${64 * MIB}\r\n\r\n`)
    const chunk = Buffer.alloc(MIB, 'x')
    const before = residentMib()
    for (let i = 0; i < 64 && !socket.destroyed; i++) {
      if (!socket.write(chunk))
        await Promise.race([closed(socket), new Promise((resolve) => socket.once('drain', resolve))])
    }
    socket.end()
    await closed(socket)
    expect(residentMib() - before).toBeLessThan(64)
  })

  it.each<[string, Record<string, string>, number]>([
    ['a token of nonsense', { 'x-auth-token': 'x'.repeat(8000) }, 401],
    ['headers of 100 KiB', { 'x-nonsense': 'x'.repeat(100_000) }, 431],
    ['a version of nonsense', { 'openstack-api-version': 'volume 3.x' }, 400],
    ['a version of the future', { 'openstack-api-version': 'volume 3.9999' }, 406],
  ])('refuses %s', async (_what, headers, status) => {
    const answer = await send('GET', '/volumes', { ...(await withToken()), ...headers }, '')
    expect(answer.status).toBe(status)
  })
})

describe('a second process', () => {
  it('on the same data is refused, while the first one goes on writing', async () => {
    let isOver = false
    const writing = (async () => {
      for (let block = 0; !isOver; block = (block + 1) % 256) await witness.write(block * 4096, randomBytes(4096))
    })()
    const second = await collie.command('serve', '--listen=127.0.0.1:0', '--sheep-listen=127.0.0.1:0')
    isOver = true
    await writing
    expect(second).toMatchObject({ code: 69, out: '' })
    expect(second.err).toMatch(/^collie: another process serves .*data; `collie node info` says which\n$/)
  })

  it('on the same port says which', async () => {
    const directory = `--data-dir=${collie.file('second')}`
    const taken = collie.info.addresses.nbd!
    const others = ['--listen=127.0.0.1:0', '--sheep-listen=127.0.0.1:0']
    const refused = await runCollie('serve', directory, ...others, `--nbd-listen=${taken}`)
    expect(refused).toMatchObject({ code: 69, err: expect.stringContaining(`address already in use ${taken}`) })
  })
})

describe('a start that cannot be', () => {
  const LOOPBACK = ['--listen=127.0.0.1:0', '--sheep-listen=127.0.0.1:0', '--nbd-listen=127.0.0.1:0']

  it.each<[string, string[], RegExp]>([
    ['an address that is none', ['--listen=here'], /^collie: settings: listen: expected host:port .*--listen/],
    ['a number that is none', ['--journal-size-mib=big'], /journal_size_mib: .*--journal-size-mib: "big"/],
    ['a journal that is too small', ['--journal-size-mib=1'], /journal_size_mib: .*16/],
    ['an unknown role', ['--roles=api,stroe'], /roles.*stroe/s],
    ['noauth for all the world', ['--auth=noauth', '--listen=0.0.0.0:8776'], /auth: .*loopback/],
    ['more copies than nodes', ['--copies=3'], /copies: 3 copies need as many nodes/],
    ['a file of settings that is not there', ['--config=absent.yaml'], /absent\.yaml/],
  ])('for %s says what is wrong with which setting', async (_what, flags, message) => {
    const { code, out, err } = await runCollie('serve', `--data-dir=${collie.file('never')}`, ...flags)
    expect(err).toMatch(message)
    expect(err).not.toMatch(/\n +at /)
    expect({ code, out }).toEqual({ code: 78, out: '' })
  })

  it.each<[string, string, RegExp]>([
    ['settings', 'listen: [1', /mistake\.yaml/],
    ['settings with a name that is none', 'lisen: 127.0.0.1:1', /lisen: there is no such setting/],
  ])('for a file of %s names it', async (_what, content, message) => {
    const file = collie.file('mistake.yaml')
    writeFileSync(file, content)
    const { code, err } = await runCollie('serve', `--config=${file}`)
    expect(err).toMatch(message)
    expect(code).toBe(78)
  })

  it('for a directory whose name is too long for the sockets in it says so', async () => {
    const { code, err } = await runCollie('serve', `--data-dir=${collie.file('x'.repeat(100))}`, ...LOOPBACK)
    expect(err).toMatch(/path of a unix socket may have 107 bytes/)
    expect(code).toBe(69)
  })

  it.each(['collie.db', 'identity.json', 'sheep/superblock'])(
    'for a damaged %s says so, and changes nothing',
    async (name) => {
      const other = await Collie.create()
      await other.start()
      await other.kill('SIGTERM')
      const file = `${other.dataDir}/${name}`
      const damaged = randomBytes(readFileSync(file).length)
      writeFileSync(file, damaged)
      const { code, err } = await other.command('serve', ...LOOPBACK)
      expect(err).toMatch(/damaged/)
      expect([65, 69]).toContain(code)
      expect(readFileSync(file).equals(damaged)).toBe(true)
      await other.dispose()
    },
  )
})

/** The first bytes of a Sheepdog request; see the header of the wire protocol. */
function sheepHeader({ opcode, flags, dataLength }: { opcode: number; flags: number; dataLength: number }): Buffer {
  const header = Buffer.alloc(48)
  header.writeUInt8(opcode < 0x80 ? 2 : 0x0a, 0)
  header.writeUInt8(opcode, 1)
  header.writeUInt16LE(flags, 2)
  header.writeUInt32LE(1, 8)
  header.writeUInt32LE(dataLength, 12)
  return header
}
