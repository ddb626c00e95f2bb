import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import type net from 'node:net'
import { join } from 'node:path'
import type tls from 'node:tls'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import type { NbdTls } from '../../../src/exports/nbd/session.ts'
import { loadTlsIdentity } from '../../../src/runtime/tls.ts'
import { ByteStream } from '../../tools/byte-stream.ts'
import { type Certificates, makeCertificates } from '../../tools/certificates.ts'
import { ManualClock } from '../../tools/manual-clock.ts'
import { MemoryDevice, seededSchedule } from '../../tools/memory-device.ts'
import { connectSocket, NbdClient, secureClient } from '../../tools/nbd-client.ts'
import { requireCommand } from '../../tools/require-command.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, type Harness, RIGHT_ID, startServer, until } from './harness.ts'

const MIB = 1024 * 1024
const OPT = '49484156454f5054'
const NAME = '00000006 633066666565'
const STARTTLS = hex(OPT, '00000005 00000000')
const INFO = hex(OPT, '00000006 0000000c', NAME, '0000')
const STRUCTURED = hex(OPT, '00000008 00000000')
const SELECT = hex(OPT, '0000000a 00000021', NAME, '00000001 0000000f 626173653a616c6c6f636174696f6e')
const ABORT = hex(OPT, '00000002 00000000')
const ACK = 1
const ERR_UNSUP = 0x8000_0001
const ERR_INVALID = 0x8000_0003
const ERR_TLS_REQD = 0x8000_0005

let certificates: Certificates
beforeAll(async () => {
  certificates = await makeCertificates()
})
afterAll(() => certificates.remove())

/** TLS that asks clients for a certificate, or not. */
function offer({ isRequired, asks = false }: { isRequired: boolean; asks?: boolean }): NbdTls {
  const { server } = certificates
  return { identity: loadTlsIdentity({ ...server, authorities: asks ? server.authorities : null }), isRequired }
}

/** What a client shows of itself, and whom it believes. */
function credentials(directory: string, hasCertificate: boolean): tls.ConnectionOptions {
  const file = (name: string) => readFileSync(join(directory, name))
  const own = hasCertificate ? { cert: file('client-cert.pem'), key: file('client-key.pem') } : {}
  return { ca: file('ca-cert.pem'), servername: 'localhost', ...own }
}

const anonymous = () => credentials(certificates.anonymous, false)

/** A client in the handshake that says what it is told. */
class Haggler {
  socket: net.Socket
  private stream: ByteStream

  private constructor(socket: net.Socket) {
    this.socket = socket
    this.stream = new ByteStream(socket)
    socket.on('error', () => {})
    onTestFinished(() => void socket.destroy())
  }

  static async start(harness: Harness): Promise<Haggler> {
    const haggler = new Haggler(await connectSocket(harness.tcpAddress))
    await haggler.stream.take(18)
    haggler.socket.write(hex('00000003'))
    return haggler
  }

  /** The type of the last reply to an option. */
  async ask(option: Buffer): Promise<number> {
    this.socket.write(option)
    for (;;) {
      const head = await this.stream.take(20)
      await this.stream.take(head.readUInt32BE(16))
      if (head.readUInt32BE(12) !== 3 && head.readUInt32BE(12) !== 4) return head.readUInt32BE(12)
    }
  }

  async secure(): Promise<void> {
    this.socket = await secureClient(this.socket, anonymous())
    this.stream = new ByteStream(this.socket)
  }

  rest(): Promise<Buffer> {
    return this.stream.rest()
  }
}

describe('a server that wants TLS', () => {
  test('answers every option before it with nothing but that', async () => {
    const harness = await startServer({ tls: offer({ isRequired: true }) })
    const client = await Haggler.start(harness)
    for (let option = 3; option < 14; option++) {
      if (option === 5) continue
      const request = Buffer.concat([hex(OPT), Buffer.from([0, 0, 0, option]), hex('0000000c', NAME, '0000')])
      expect(await client.ask(request), `option ${option}`).toBe(ERR_TLS_REQD)
    }
    expect(await client.ask(ABORT)).toBe(ACK)
    expect(await client.rest()).toHaveLength(0)
  })

  test('ends the connection of a client that names its export without it', async () => {
    const harness = await startServer({ tls: offer({ isRequired: true }) })
    const client = await Haggler.start(harness)
    client.socket.write(hex(OPT, '00000001 00000006 633066666565'))
    expect(await client.rest()).toHaveLength(0)
  })

  test('serves who begins it', async () => {
    const harness = await startServer({ tls: offer({ isRequired: true }) })
    const client = await NbdClient.connect(harness.tcpAddress, EXPORT_NAME, { tls: anonymous() })
    await client.write(4096, Buffer.alloc(8192, 5))
    expect((await client.read(4096, 8192)).equals(Buffer.alloc(8192, 5))).toBe(true)
    const oldStyle = { tls: anonymous(), structured: false }
    const old = await NbdClient.connect(harness.unixPath, EXPORT_NAME, oldStyle)
    expect((await old.read(4096, 1))[0]).toBe(5)
    await Promise.all([client.disconnect(), old.disconnect()])
    await until(() => harness.server.stats.connections === 0)
  })
})

describe('STARTTLS', () => {
  test('is unknown to a server without certificates', async () => {
    const client = await Haggler.start(await startServer())
    expect(await client.ask(STARTTLS)).toBe(ERR_UNSUP)
    expect(await client.ask(INFO)).toBe(ACK)
  })

  test('is refused with data, and inside of TLS', async () => {
    const client = await Haggler.start(await startServer({ tls: offer({ isRequired: true }) }))
    expect(await client.ask(hex(OPT, '00000005 00000001 00'))).toBe(ERR_INVALID)
    expect(await client.ask(STARTTLS)).toBe(ACK)
    await client.secure()
    expect(await client.ask(STARTTLS)).toBe(ERR_INVALID)
    expect(await client.ask(INFO)).toBe(ACK)
  })

  test('ends the connection when something that is not TLS comes along with it, or behind it', async () => {
    const harness = await startServer({ tls: offer({ isRequired: false }) })
    for (const { injected, later } of [
      { injected: STRUCTURED, later: Buffer.alloc(0) },
      { injected: Buffer.of(0x16), later: Buffer.alloc(0) }, // it may even look like the beginning of TLS
      { injected: Buffer.alloc(0), later: STRUCTURED },
    ]) {
      const client = await Haggler.start(harness)
      expect(await client.ask(Buffer.concat([STARTTLS, injected]))).toBe(ACK)
      client.socket.write(later)
      await client.rest()
      await until(() => harness.server.stats.connections === 0)
    }
    expect(harness.server.stats.refusedConnections).toBe(3)
  })

  test('makes the server forget what was agreed before', async () => {
    const harness = await startServer({ tls: offer({ isRequired: false }) })
    let open = 0
    const right = harness.rights.get(EXPORT_NAME)!
    class CountedDevice extends MemoryDevice {
      override async close(): Promise<void> {
        open--
        await super.close()
      }
    }
    harness.rights.set(EXPORT_NAME, {
      ...right,
      open: async () => {
        open++
        return new CountedDevice(harness.disk)
      },
    })
    const client = await Haggler.start(harness)
    expect(await client.ask(STRUCTURED)).toBe(ACK)
    expect(await client.ask(SELECT)).toBe(ACK)
    expect(await client.ask(INFO)).toBe(ACK)
    expect(open).toBe(1)
    expect(await client.ask(STARTTLS)).toBe(ACK)
    await client.secure()
    expect(await client.ask(SELECT)).toBe(ERR_INVALID) // it needs structured replies
    expect(open).toBe(0)
    expect(await client.ask(INFO)).toBe(ACK)
    expect(open).toBe(1)
  })

  test('has so long as the whole handshake, and a client that goes on to say nothing is cut', async () => {
    const clock = new ManualClock()
    const harness = await startServer({ clock, tls: offer({ isRequired: true }), limits: { handshakeMs: 30_000 } })
    const client = await Haggler.start(harness)
    expect(await client.ask(STARTTLS)).toBe(ACK)
    clock.advance(30_000)
    expect(await client.rest()).toHaveLength(0)
    await until(() => harness.server.stats.connections === 0)
    expect(harness.server.stats.refusedConnections).toBe(1)
  })
})

describe('certificates of clients', () => {
  test('are looked at where authorities are named: no other client gets through', async () => {
    const harness = await startServer({ tls: offer({ isRequired: true, asks: true }) })
    const { trusted, stranger } = certificates
    const client = await NbdClient.connect(harness.tcpAddress, EXPORT_NAME, { tls: credentials(trusted, true) })
    await client.flush()
    for (const refused of [credentials(stranger, true), anonymous()]) {
      await expect(NbdClient.connect(harness.tcpAddress, EXPORT_NAME, { tls: refused })).rejects.toThrow()
    }
    await until(() => harness.server.stats.connections === 1)
    expect(harness.server.stats.refusedConnections).toBe(2)
    await client.flush()
  })

  test('and keys that do not belong together are refused at the start', () => {
    const { server, trusted } = certificates
    const key = join(trusted, 'client-key.pem')
    expect(() => loadTlsIdentity({ ...server, key })).toThrow(/mismatch/)
    expect(() => loadTlsIdentity({ ...server, key: join(trusted, 'absent.pem') })).toThrow('absent.pem is not there')
  })
})

describe('a session inside of TLS', () => {
  test('carries large and small requests, many at a time', async () => {
    const harness = await startServer({
      sizeBytes: 16 * MIB,
      schedule: seededSchedule(3),
      tls: offer({ isRequired: true }),
    })
    const client = await NbdClient.connect(harness.tcpAddress, EXPORT_NAME, { tls: anonymous() })
    const image = Buffer.alloc(8 * MIB, 'collie ')
    await client.write(0, image)
    const small = Array.from({ length: 64 }, (_, n) => client.write(8 * MIB + n * 512, Buffer.alloc(512, n + 1)))
    await Promise.all(small)
    const reads = Array.from({ length: 64 }, (_, n) => client.read(8 * MIB + n * 512, 512))
    for (const [n, read] of (await Promise.all(reads)).entries())
      expect(read.equals(Buffer.alloc(512, n + 1))).toBe(true)
    expect((await client.read(0, image.length)).equals(image)).toBe(true)
    await client.disconnect()
    await until(() => harness.server.stats.connections === 0)
    expect(harness.server.stats.commonBytes).toBe(0)
  })

  test('ends when its right does, also for a client that does not read', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB, tls: offer({ isRequired: true }) })
    const client = await Haggler.start(harness)
    expect(await client.ask(STARTTLS)).toBe(ACK)
    await client.secure()
    client.socket.write(hex(OPT, '00000001 00000006 633066666565'))
    const read = hex('25609513 0000 0000 0000000000000002 0000000000000000 00100000')
    client.socket.pause()
    client.socket.write(Buffer.concat(Array(16).fill(read)))
    await until(() => harness.server.stats.bytesRead === 16 * MIB)
    expect(harness.server.stats.commonBytes).toBeGreaterThan(0)
    harness.rights.delete(EXPORT_NAME)
    await harness.server.cutOff(RIGHT_ID)
    expect(harness.server.stats).toMatchObject({ connections: 0, commonBytes: 0 })
  })
})

describe('real clients', () => {
  const run = async (command: string, ...args: string[]) =>
    (await promisify(execFile)(command, args, { timeout: 50_000 })).stdout
  const uriOf = ({ tcpAddress }: Harness, directory: string) =>
    `nbds://${tcpAddress}/${EXPORT_NAME}?tls-certificates=${directory}`
  const withNbdinfo = requireCommand('nbdinfo', 'libnbd-bin')
  const withNbdcopy = requireCommand('nbdcopy', 'libnbd-bin')
  const withQemuImg = requireCommand('qemu-img', 'qemu-utils')

  withNbdinfo('nbdinfo comes in by TLS, and not without it or with the wrong certificate', async () => {
    const harness = await startServer({ sizeBytes: 16 * MIB, tls: offer({ isRequired: true, asks: true }) })
    const info = JSON.parse(await run('nbdinfo', '--json', '--no-content', uriOf(harness, certificates.trusted)))
    expect(info).toMatchObject({ TLS: true, structured: true, exports: [{ 'export-size': 16 * MIB }] })
    await expect(run('nbdinfo', uriOf(harness, certificates.stranger))).rejects.toThrow()
    await expect(run('nbdinfo', `nbd://${harness.tcpAddress}/${EXPORT_NAME}`)).rejects.toThrow('not supported')
  })

  withNbdcopy('nbdcopy brings an image in and out again, over several connections', async () => {
    const harness = await startServer({
      sizeBytes: 12 * MIB,
      schedule: seededSchedule(7),
      tls: offer({ isRequired: true }),
    })
    const [source, copy] = [join(certificates.anonymous, 'source'), join(certificates.anonymous, 'copy')]
    const image = Buffer.alloc(12 * MIB)
    for (let at = 0; at < image.length; at += 3 * MIB) image.fill(`block ${at} `, at, at + MIB)
    writeFileSync(source, image)
    await run('nbdcopy', '--flush', source, uriOf(harness, certificates.anonymous))
    expect(harness.disk.unflushedWrites).toBe(0)
    await run('nbdcopy', uriOf(harness, certificates.anonymous), copy)
    expect(readFileSync(copy).equals(image)).toBe(true)
  })

  withQemuImg('qemu-img reads by TLS with its certificate', async () => {
    const harness = await startServer({ sizeBytes: 8 * MIB, tls: offer({ isRequired: true, asks: true }) })
    const [host, port] = harness.tcpAddress.split(':')
    const secrets = `tls-creds-x509,id=tls,endpoint=client,dir=${certificates.trusted}`
    const image = `driver=nbd,host=${host},port=${port},export=${EXPORT_NAME},tls-creds=tls`
    const info = JSON.parse(await run('qemu-img', 'info', '--output=json', '--object', secrets, '--image-opts', image))
    expect(info).toMatchObject({ 'virtual-size': 8 * MIB })
  })
})
