import { z } from 'zod'
import { parseAddress } from '../runtime/network.ts'

export const address = z.string().refine(isAddress, { error: 'expected host:port or the path of a unix socket' })

function isAddress(text: string): boolean {
  try {
    parseAddress(text)
    return true
  } catch {
    return false
  }
}
