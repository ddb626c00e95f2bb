import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { MemberId } from '../../../src/sheep/cluster/group.ts'
import type { ContractMember } from './group-contract.ts'
import type { Told } from './group-history.ts'
import type { Burst } from './group-member.ts'
import type { Answer, Engine, Order } from './node-process.ts'

const PROGRAM = path.join(import.meta.dirname, 'node-process.ts')

/** A process on a node, which may have members in several clusters. */
export class NodeProcess {
  readonly #child: ChildProcess
  readonly #members = new Map<number, RemoteMember>()
  #lastNumber = 0

  /** `before` are words that begin the command, to run it elsewhere. */
  constructor(engine: Engine, before: readonly string[] = []) {
    const [command, ...args] = [...before, process.execPath, '--import', 'tsx', PROGRAM, JSON.stringify(engine)]
    this.#child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#child.on('message', (answer: Answer) => this.#members.get(answer.member)!.answered(answer))
    this.#child.once('close', () => {
      for (const member of this.#members.values()) member.answered({ did: 'fail', reason: 'the process has ended' })
    })
    this.#child.on('error', () => {}) // 'close' follows
    const killWithUs = () => this.#child.kill('SIGKILL')
    process.once('exit', killWithUs)
    this.#child.once('close', () => process.off('exit', killWithUs))
  }

  async join(cluster: string): Promise<RemoteMember> {
    const number = ++this.#lastNumber
    const member = new RemoteMember((order) => {
      if (this.#child.connected) this.#child.send({ ...order, member: number })
    })
    this.#members.set(number, member)
    await member.join(cluster)
    return member
  }

  /** As a crash ends it. */
  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    const ended = once(this.#child, 'close')
    this.#child.kill('SIGKILL')
    await ended
  }

  stop(): void {
    this.#child.kill('SIGSTOP')
  }

  resume(): void {
    this.#child.kill('SIGCONT')
  }
}

type OrderOf<T> = T extends { member: number } ? Omit<T, 'member'> : never

class RemoteMember implements ContractMember {
  self: MemberId = ''
  readonly told: Told[] = []
  misuses: readonly string[] = []
  readonly #order: (order: OrderOf<Order>) => void
  #waiting: { resolve: (bytes: number) => void; reject: (error: Error) => void } | null = null
  #failure: Error | null = null

  constructor(order: (order: OrderOf<Order>) => void) {
    this.#order = order
  }

  answered(answer: OrderOf<Answer>): void {
    switch (answer.did) {
      case 'tell':
        this.told.push(...answer.told)
        return
      case 'fail':
        this.#failure = new Error(answer.reason)
        return this.#waiting?.reject(this.#failure)
      case 'join':
        this.self = answer.self
        return this.#waiting?.resolve(0)
      case 'leave':
        this.misuses = answer.misuses
        return this.#waiting?.resolve(0)
      case 'measure':
        this.misuses = answer.misuses
        return this.#waiting?.resolve(answer.residentBytes)
    }
  }

  #ask(order: OrderOf<Order>): Promise<number> {
    if (this.#failure !== null) return Promise.reject(this.#failure)
    const answered = new Promise<number>((resolve, reject) => {
      this.#waiting = { resolve, reject }
    })
    this.#order(order)
    return answered
  }

  async join(cluster: string): Promise<void> {
    await this.#ask({ do: 'join', cluster })
  }

  send(burst: Burst): void {
    this.#order({ do: 'send', burst })
  }

  async leave(): Promise<void> {
    await this.#ask({ do: 'leave' })
  }

  residentBytes(): Promise<number> {
    return this.#ask({ do: 'measure' })
  }
}
