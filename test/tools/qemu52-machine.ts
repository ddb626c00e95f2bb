import { PromptedProcess } from './prompted-process.ts'
import { QEMU_IO_FAILED, qemu52 } from './qemu52.ts'

const PROMPT = '(qemu) '
const FAILED = /^(Error|unknown command|invalid)/m

export interface MachineOptions {
  memoryMib: number
  /** Of its only disk, which QEMU's own driver opens. */
  url: string
  /** A file that is in its memory from the start, at `address`. */
  content?: { path: string; address: number }
}

/** A PC of QEMU 5.2 that is told by its monitor what to do. It is stopped at first. */
export class Machine {
  readonly #monitor: PromptedProcess

  private constructor(monitor: PromptedProcess) {
    this.#monitor = monitor
  }

  static async start({ memoryMib, url, content }: MachineOptions): Promise<Machine> {
    const loader = content && `loader,file=${content.path},addr=${content.address},force-raw=on`
    const words = [
      ...['stdbuf', '-oL'], // what `qemu-io` prints goes past the monitor, through a buffer of its own
      ...[qemu52('qemu-system-x86_64'), '-L', '/usr/share/seabios', '-L', '/usr/share/qemu'],
      ...[
        '-S',
        '-accel',
        'tcg',
        '-m',
        String(memoryMib),
        '-nodefaults',
        '-display',
        'none',
        '-vga',
        'none',
        '-net',
        'none',
      ],
      // With a format on top of the protocol QEMU answers no I/O after a `loadvm`.
      ...['-drive', `file=${url},format=sheepdog,id=disk,if=none`, '-device', 'virtio-blk-pci,drive=disk'],
      ...(loader === undefined ? [] : ['-device', loader]),
      ...['-monitor', 'stdio'],
    ]
    return new Machine(await PromptedProcess.start(words, PROMPT))
  }

  /** A line for the monitor; resolves with what it printed. Rejects when it names an error. */
  async run(command: string): Promise<string> {
    const printed = await this.#monitor.ask(command)
    const answer = printed.slice(printed.indexOf('\n') + 1).replaceAll('\r', '') // the first line is the command
    if (FAILED.test(answer) || QEMU_IO_FAILED.test(answer)) throw new Error(`${command}: ${answer}`)
    return answer
  }

  /** A command of qemu-io on the disk. */
  async io(command: string): Promise<void> {
    const answer = await this.run(`qemu-io disk "${command}"`)
    if (!/^(read|wrote) \d+\/\d+ bytes/m.test(answer)) throw new Error(`${command}: ${answer}`)
  }

  /** Turns it off. */
  quit(): Promise<void> {
    return this.#monitor.quit('quit')
  }

  /** Ends it as a crash does. Does nothing when it is off. */
  kill(): Promise<void> {
    return this.#monitor.kill()
  }
}
