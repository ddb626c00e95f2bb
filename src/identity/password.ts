import { type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { ServiceError } from '../errors.ts'
import type { Random } from '../runtime/random.ts'

/** About 50 ms and 16 MiB for one attempt, on a thread of libuv's pool and not on the loop. */
const COST: ScryptOptions = { N: 16_384, r: 8, p: 1 }
const KEY_BYTES = 32
const SALT_BYTES = 16

/** Attempts that may be under way at once, and wait behind them: guessing cannot take the machine. */
const RUNNING_MAX = 2
const WAITING_MAX = 32

const derive = promisify(scrypt) as (
  password: string,
  salt: Buffer,
  length: number,
  cost: ScryptOptions,
) => Promise<Buffer>

/** `scrypt$<salt>$<key>`, both base64url. */
export async function hashPassword(password: string, random: Random): Promise<string> {
  const salt = random.bytes(SALT_BYTES)
  const key = await derive(password, salt, KEY_BYTES, COST)
  return `scrypt$${salt.toString('base64url')}$${key.toString('base64url')}`
}

export interface PasswordChecker {
  /** Rejects with ServiceUnavailable when too many attempts wait already. */
  check(password: string, hash: string): Promise<boolean>
}

export function createPasswordChecker(): PasswordChecker {
  let running = 0
  const waiting: (() => void)[] = []
  return {
    check: async (password, hash) => {
      if (waiting.length >= WAITING_MAX) {
        throw new ServiceError('ServiceUnavailable', { reason: 'Too many attempts to authenticate. Try again.' })
      }
      if (running >= RUNNING_MAX) await new Promise<void>((resume) => waiting.push(resume))
      else running++
      try {
        return await matches(password, hash)
      } finally {
        const next = waiting.shift()
        if (next === undefined) running--
        else next() // takes over this one's place
      }
    },
  }
}

async function matches(password: string, hash: string): Promise<boolean> {
  const [scheme, salt, key] = hash.split('$')
  if (scheme !== 'scrypt' || salt === undefined || key === undefined) return false
  const expected = Buffer.from(key, 'base64url')
  const given = await derive(password, Buffer.from(salt, 'base64url'), KEY_BYTES, COST)
  return expected.length === given.length && timingSafeEqual(expected, given)
}
