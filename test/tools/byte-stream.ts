import type net from 'node:net'

/** What arrives on a socket, taken in pieces of the reader's choice. */
export class ByteStream {
  private chunks: Buffer[] = []
  private bufferedBytes = 0
  private ended = false
  private wake: () => void = () => {}

  constructor(socket: net.Socket) {
    socket.on('data', (chunk) => {
      this.chunks.push(chunk)
      this.bufferedBytes += chunk.length
      this.wake()
    })
    const end = () => {
      this.ended = true
      this.wake()
    }
    socket.on('end', end)
    socket.on('close', end)
    socket.on('error', end)
  }

  /** Exactly `lengthBytes`; rejects when the stream ends before. */
  async take(lengthBytes: number): Promise<Buffer> {
    while (this.bufferedBytes < lengthBytes) {
      if (this.ended) throw new Error(`the stream ended after ${this.bufferedBytes} of ${lengthBytes} bytes`)
      await new Promise<void>((resolve) => {
        this.wake = resolve
      })
    }
    const all = this.chunks.length === 1 ? this.chunks[0]! : Buffer.concat(this.chunks)
    this.chunks = [all.subarray(lengthBytes)]
    this.bufferedBytes -= lengthBytes
    return all.subarray(0, lengthBytes)
  }

  /** Everything up to the end of the stream. */
  async rest(): Promise<Buffer> {
    while (!this.ended) {
      await new Promise<void>((resolve) => {
        this.wake = resolve
      })
    }
    return this.take(this.bufferedBytes)
  }
}
