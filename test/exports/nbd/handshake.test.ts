import { describe, expect, test } from 'vitest'
import { StoreError } from '../../../src/errors.ts'
import { ByteStream } from '../../tools/byte-stream.ts'
import { connectSocket, NbdClient } from '../../tools/nbd-client.ts'
import { hex } from './bytes.ts'
import { EXPORT_NAME, type Harness, startServer, until } from './harness.ts'

/** Every byte here is written by hand from the protocol's document; no encoder of ours takes part. */
const GREETING = '4e42444d41474943 49484156454f5054 0003'
const OPT = '49484156454f5054'
const REP = '0003e889045565a9'
/** "c0ffee", a string with its length. */
const NAME = '00000006 633066666565'
const BASE_ALLOCATION = '0000000f 626173653a616c6c6f636174696f6e'
/** 1 MiB, and HAS_FLAGS SEND_FLUSH SEND_FUA SEND_TRIM SEND_WRITE_ZEROES CAN_MULTI_CONN SEND_CACHE SEND_FAST_ZERO. */
const SIZE_AND_FLAGS = '0000000000100000 0d6d'
const INFO_EXPORT = `00000003 0000000c 0000 ${SIZE_AND_FLAGS}`
const ACK = '00000001 00000000'
const UNKNOWN = `80000006 0000000e ${Buffer.from('no such export').toString('hex')}`
const READ_4_AT_0 = '25609513 0000 0000 00000000000000ab 0000000000000000 00000004'

/** Sends and expects in turn: `C` lines are sent, `S` lines must come back exactly. */
async function converse(harness: Harness, lines: readonly string[], end?: 'closed'): Promise<void> {
  const socket = await connectSocket(harness.unixPath)
  const stream = new ByteStream(socket)
  expect((await stream.take(18)).toString('hex')).toBe(GREETING.replaceAll(' ', ''))
  for (const line of lines) {
    const bytes = hex(line.slice(1))
    if (line.startsWith('C')) socket.write(bytes)
    else expect((await stream.take(bytes.length)).toString('hex')).toBe(bytes.toString('hex'))
  }
  if (end === 'closed') expect((await stream.rest()).toString('hex')).toBe('')
  socket.destroy()
}

describe('the handshake', () => {
  test('GO tells size and flags, and requests follow', async () => {
    const harness = await startServer()
    harness.disk.copyIn(0, Buffer.from('data'))
    await converse(harness, [
      'C 00000003',
      `C ${OPT} 00000007 0000000c ${NAME} 0000`,
      `S ${REP} 00000007 ${INFO_EXPORT}`,
      `S ${REP} 00000007 ${ACK}`,
      `C ${READ_4_AT_0}`,
      'S 67446698 00000000 00000000000000ab 64617461',
    ])
  })

  test('requests may follow GO without waiting for its answer', async () => {
    await converse(await startServer(), [
      `C 00000003 ${OPT} 00000007 0000000c ${NAME} 0000 ${READ_4_AT_0}`,
      `S ${REP} 00000007 ${INFO_EXPORT} ${REP} 00000007 ${ACK}`,
      'S 67446698 00000000 00000000000000ab 00000000',
    ])
  })

  test('INFO tells what was asked for and goes on with options', async () => {
    await converse(await startServer(), [
      'C 00000001',
      `C ${OPT} 00000006 00000014 ${NAME} 0004 0001 0003 0063 0002`,
      `S ${REP} 00000006 ${INFO_EXPORT}`,
      `S ${REP} 00000006 00000003 00000008 0001 633066666565`,
      `S ${REP} 00000006 00000003 00000019 0002 ${hexOf('attachment attachment-1')}`,
      `S ${REP} 00000006 00000003 0000000e 0003 00000001 00001000 02000000`,
      `S ${REP} 00000006 ${ACK}`,
      `C ${OPT} 00000007 0000000c ${NAME} 0000`,
      `S ${REP} 00000007 ${INFO_EXPORT} ${REP} 00000007 ${ACK}`,
    ])
  })

  test.each([
    ['with 124 zeroes', '00000001', '00'.repeat(124)],
    ['without zeroes', '00000003', ''],
  ])('EXPORT_NAME is answered %s', async (_title, flags, zeroes) => {
    await converse(await startServer(), [
      `C ${flags} ${OPT} 00000001 00000006 633066666565`,
      `S ${SIZE_AND_FLAGS} ${zeroes}`,
      `C ${READ_4_AT_0}`,
      'S 67446698 00000000 00000000000000ab 00000000',
    ])
  })

  test('structured replies bring SEND_DF, and base:allocation is selected for one export', async () => {
    await converse(await startServer(), [
      'C 00000003',
      `C ${OPT} 00000008 00000000`,
      `S ${REP} 00000008 ${ACK}`,
      `C ${OPT} 00000009 0000000e ${NAME} 00000000`,
      `S ${REP} 00000009 00000004 00000013 00000000 626173653a616c6c6f636174696f6e`,
      `S ${REP} 00000009 ${ACK}`,
      `C ${OPT} 0000000a 00000021 ${NAME} 00000001 ${BASE_ALLOCATION}`,
      `S ${REP} 0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e`,
      `S ${REP} 0000000a ${ACK}`,
      `C ${OPT} 00000007 0000000c ${NAME} 0000`,
      `S ${REP} 00000007 00000003 0000000c 0000 0000000000100000 0ded ${REP} 00000007 ${ACK}`,
      'C 25609513 0000 0007 0000000000000001 0000000000000000 00100000',
      'S 668e33ef 0001 0005 0000000000000001 0000000c 00000001 00100000 00000003',
      `C ${READ_4_AT_0}`,
      'S 668e33ef 0001 0001 00000000000000ab 0000000c 0000000000000000 00000000',
    ])
  })

  test('a selection that another one follows, or that fails, does not count', async () => {
    const noStatus = [
      `C ${OPT} 00000007 0000000c ${NAME} 0000`,
      `S ${REP} 00000007 00000003 0000000c 0000 0000000000100000 0ded ${REP} 00000007 ${ACK}`,
      'C 25609513 0000 0007 0000000000000001 0000000000000000 00100000',
      'S 668e33ef 0001 8001 0000000000000001 0000002e 00000016 0028',
    ]
    const select = [
      'C 00000003',
      `C ${OPT} 00000008 00000000`,
      `S ${REP} 00000008 ${ACK}`,
      `C ${OPT} 0000000a 00000021 ${NAME} 00000001 ${BASE_ALLOCATION}`,
      `S ${REP} 0000000a 00000004 00000013 00000001 626173653a616c6c6f636174696f6e`,
      `S ${REP} 0000000a ${ACK}`,
    ]
    const harness = await startServer()
    await converse(harness, [
      ...select,
      `C ${OPT} 0000000a 00000017 ${NAME} 00000001 00000005 626173653a`,
      `S ${REP} 0000000a ${ACK}`,
      ...noStatus,
    ])
    await converse(harness, [
      ...select,
      `C ${OPT} 0000000a 00000004 00000001`,
      `S ${REP} 0000000a 80000003 00000000`,
      ...noStatus,
    ])
  })

  test('the list of exports is empty for everybody', async () => {
    await converse(await startServer(), [
      'C 00000003',
      `C ${OPT} 00000003 00000000`,
      `S ${REP} 00000003 ${ACK}`,
      `C ${OPT} 00000003 00000001 00`,
      `S ${REP} 00000003 80000003 00000000`,
    ])
  })

  test('ABORT is acknowledged, data or not, then the connection ends', async () => {
    const harness = await startServer()
    await converse(harness, [`C 00000003 ${OPT} 00000002 00000002 6869`, `S ${REP} 00000002 ${ACK}`], 'closed')
  })

  test('what is not known is unsupported, and the next option is understood', async () => {
    await converse(await startServer(), [
      'C 00000003',
      `C ${OPT} 00000005 00000000`,
      `S ${REP} 00000005 80000001 00000000`,
      `C ${OPT} 00001234 00000003 010203`,
      `S ${REP} 00001234 80000001 00000000`,
      `C ${OPT} 0000000b 00000000`,
      `S ${REP} 0000000b 80000001 00000000`,
      `C ${OPT} 00000003 00000000`,
      `S ${REP} 00000003 ${ACK}`,
    ])
  })

  test('malformed options are invalid, and the next option is understood', async () => {
    await converse(await startServer(), [
      'C 00000003',
      ...['00000003 000000', '00000007 63306666', '00000006 633066666565 0001', `${NAME} 0000 00`].flatMap((data) => [
        `C ${OPT} 00000007 ${hex(data).length.toString(16).padStart(8, '0')} ${data}`,
        `S ${REP} 00000007 80000003 00000000`,
      ]),
      `C ${OPT} 00000008 00000001 00`,
      `S ${REP} 00000008 80000003 00000000`,
      `C ${OPT} 0000000a 0000000e ${NAME} 00000000`, // before structured replies
      `S ${REP} 0000000a 80000003 00000000`,
      `C ${OPT} 00000008 00000000`,
      `S ${REP} 00000008 ${ACK}`,
      `C ${OPT} 00000009 0000000e ${NAME} ffffffff`,
      `S ${REP} 00000009 80000003 00000000`,
      `C ${OPT} 00000007 0000000c ${NAME} 0000`,
      `S ${REP} 00000007 00000003 0000000c 0000 0000000000100000 0ded ${REP} 00000007 ${ACK}`,
    ])
  })

  test('an unknown export is unknown, and the client may ask for another', async () => {
    const harness = await startServer()
    await converse(harness, [
      'C 00000003',
      `C ${OPT} 00000007 00000006 00000000 0000`, // the default export
      `S ${REP} 00000007 ${UNKNOWN}`,
      `C ${OPT} 00000006 0000000b 00000005 63306666 65 0000`,
      `S ${REP} 00000006 ${UNKNOWN}`,
      `C ${OPT} 00000008 00000000`,
      `S ${REP} 00000008 ${ACK}`,
      `C ${OPT} 0000000a 00000009 00000001 78 00000000`,
      `S ${REP} 0000000a ${UNKNOWN}`,
      `C ${OPT} 00000007 0000000c ${NAME} 0000`,
      `S ${REP} 00000007 00000003 0000000c 0000 0000000000100000 0ded`,
    ])
    await converse(harness, [`C 00000003 ${OPT} 00000001 00000001 78`], 'closed')
  })

  test('a volume that cannot be opened is unknown, or asks to come back when the node stops', async () => {
    const harness = await startServer()
    const refuse = (code: 'NoVdi' | 'Stopping') =>
      harness.rights.set(EXPORT_NAME, {
        id: 'a',
        readOnly: false,
        open: () => Promise.reject(new StoreError(code)),
      })
    const go = `C 00000003 ${OPT} 00000007 0000000c ${NAME} 0000`
    refuse('NoVdi')
    await converse(harness, [go, `S ${REP} 00000007 ${UNKNOWN}`])
    refuse('Stopping')
    await converse(harness, [go, `S ${REP} 00000007 80000007 00000014 ${hexOf('the node is stopping')}`])
  })

  test('a read-only right is told', async () => {
    await converse(await startServer({ readOnly: true }), [
      `C 00000003 ${OPT} 00000001 00000006 633066666565`,
      'S 0000000000100000 0d6f',
    ])
  })
})

describe('the handshake is bounded', () => {
  test.each([
    ['other client flags', 'ffffffff'],
    ['another protocol', '00000003 474554202f20485454502f312e310d0a'],
    ['a giant option', `00000003 ${OPT} 00000007 7fffffff`],
    ['too many options', `00000003 ${`${OPT} 00000099 00000000`.repeat(3)}`],
  ])('%s', async (_title, bytes) => {
    const harness = await startServer({ limits: { optionsMax: 2 } })
    const socket = await connectSocket(harness.tcpAddress)
    socket.on('error', () => {})
    const over = new Promise((resolve) => socket.once('close', resolve))
    socket.resume()
    socket.write(hex(bytes))
    await over
    expect(harness.server.stats).toMatchObject({ connections: 0, refusedConnections: 1 })
  })

  test('in time', async () => {
    const harness = await startServer({ limits: { handshakeMs: 20 } })
    const socket = await connectSocket(harness.unixPath)
    expect((await new ByteStream(socket).rest()).length).toBe(18)
    await until(() => harness.server.stats.connections === 0)
    expect(harness.server.stats.refusedConnections).toBe(1)
  })

  test('in number', async () => {
    const harness = await startServer({ limits: { handshakesMax: 2 } })
    const first = await connectSocket(harness.unixPath)
    const second = await connectSocket(harness.unixPath)
    await until(() => harness.server.stats.connections === 2)
    const third = await NbdClient.connect(harness.unixPath, EXPORT_NAME)
    expect(await new ByteStream(first).rest()).toHaveLength(18)
    expect(harness.server.stats).toMatchObject({ connections: 2, refusedConnections: 1 })
    await third.flush()
    second.destroy()
  })

  test('in number, but for who has shown a right', async () => {
    const harness = await startServer({ limits: { handshakesMax: 1 } })
    const first = await connectSocket(harness.unixPath)
    const stream = new ByteStream(first)
    first.write(hex(`00000003 ${OPT} 00000006 0000000c ${NAME} 0000`))
    await stream.take(18 + 32 + 20)
    const second = await connectSocket(harness.unixPath)
    expect(await new ByteStream(second).rest()).toHaveLength(0)
    first.write(hex(`${OPT} 00000007 0000000c ${NAME} 0000`))
    await stream.take(32 + 20)
    first.destroy()
  })
})

function hexOf(text: string): string {
  return Buffer.from(text).toString('hex')
}
