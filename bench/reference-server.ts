/**
 * The floor of what NBD costs in Node: a bare server without checks, limits, pools or a store, that reads and writes
 * a file synchronously on the socket's thread. bench/nbd.ts compares against it.
 * Usage: tsx bench/reference-server.ts SOCKET FILE
 */
import { fdatasyncSync, fstatSync, openSync, readSync, writeSync } from 'node:fs'
import net from 'node:net'

const OPTION_MAGIC = 'IHAVEOPT'
const OPTION_REPLY_MAGIC = Buffer.from('0003e889045565a9', 'hex')
const [OPT_EXPORT_NAME, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY] = [1, 6, 7, 8]
const [REP_ACK, REP_INFO, REP_ERR_UNSUP] = [1, 3, 0x8000_0001]
const TRANSMISSION_FLAGS = 0b1101 // HAS_FLAGS, SEND_FLUSH, SEND_FUA
const [READ, WRITE, DISC] = [0, 1, 2]

const [socketPath, file] = process.argv.slice(2)
if (socketPath === undefined || file === undefined) throw new Error('usage: reference-server.ts SOCKET FILE')
const fd = openSync(file, 'r+')
const sizeBytes = fstatSync(fd).size

net.createServer((socket) => serve(socket)).listen(socketPath, () => process.stdout.write('listening\n'))
process.on('SIGTERM', () => process.exit(0))

function serve(socket: net.Socket): void {
  let buffered: Buffer = Buffer.alloc(0)
  let greeted = false
  let transmitting = false
  let structured = false
  socket.write(Buffer.from('NBDMAGICIHAVEOPT\0\x03', 'latin1'))
  socket.on('error', () => socket.destroy())
  socket.on('data', (chunk) => {
    buffered = buffered.length === 0 ? chunk : Buffer.concat([buffered, chunk])
    if (!greeted && buffered.length >= 4) {
      greeted = true
      buffered = buffered.subarray(4)
    }
    while (greeted && !transmitting && haggle()) {}
    if (!transmitting) return
    socket.cork()
    while (transmit()) {}
    socket.uncork()
  })

  function haggle(): boolean {
    if (buffered.length < 16 || buffered.length < 16 + buffered.readUInt32BE(12)) return false
    if (buffered.toString('latin1', 0, 8) !== OPTION_MAGIC) throw new Error('no option magic')
    const option = buffered.readUInt32BE(8)
    buffered = buffered.subarray(16 + buffered.readUInt32BE(12))
    const info = Buffer.alloc(12)
    info.writeBigUInt64BE(BigInt(sizeBytes), 2)
    info.writeUInt16BE(TRANSMISSION_FLAGS, 10)
    transmitting = option === OPT_GO || option === OPT_EXPORT_NAME
    if (option === OPT_EXPORT_NAME) {
      socket.write(info.subarray(2))
    } else if (option === OPT_GO || option === OPT_INFO) {
      reply(option, REP_INFO!, info)
      reply(option, REP_ACK!, Buffer.alloc(0))
    } else if (option === OPT_STRUCTURED_REPLY) {
      structured = true
      reply(option, REP_ACK!, Buffer.alloc(0))
    } else {
      reply(option, REP_ERR_UNSUP!, Buffer.alloc(0))
    }
    return true
  }

  function reply(option: number, type: number, data: Buffer): void {
    const header = Buffer.alloc(20)
    OPTION_REPLY_MAGIC.copy(header)
    header.writeUInt32BE(option, 8)
    header.writeUInt32BE(type, 12)
    header.writeUInt32BE(data.length, 16)
    socket.write(Buffer.concat([header, data]))
  }

  function transmit(): boolean {
    if (buffered.length < 28) return false
    const type = buffered.readUInt16BE(6)
    const offset = buffered.readUInt32BE(16) * 2 ** 32 + buffered.readUInt32BE(20)
    const lengthBytes = buffered.readUInt32BE(24)
    const end = type === WRITE ? 28 + lengthBytes : 28
    if (buffered.length < end) return false
    const dataStart = type === READ && structured ? 28 : 16
    const answer = Buffer.allocUnsafe(type === READ ? dataStart + lengthBytes : dataStart)
    if (dataStart === 28) {
      answer.writeUInt32BE(0x668e33ef, 0)
      answer.writeUInt32BE(0x0001_0001, 4) // DONE, OFFSET_DATA
      answer.writeUInt32BE(8 + lengthBytes, 16)
      buffered.copy(answer, 20, 16, 24)
    } else {
      answer.writeUInt32BE(0x67446698, 0)
      answer.writeUInt32BE(0, 4)
    }
    buffered.copy(answer, 8, 8, 16)
    if (type === READ) readSync(fd, answer, dataStart, lengthBytes, offset)
    else if (type === WRITE) writeSync(fd, buffered, 28, lengthBytes, offset)
    else if (type === DISC) socket.end()
    else fdatasyncSync(fd)
    buffered = buffered.subarray(end)
    if (type !== DISC) socket.write(answer)
    return true
  }
}
