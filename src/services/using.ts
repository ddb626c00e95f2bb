import type { VolumeData } from '../drivers/driver.ts'

/** Closes it at the end, however that is. */
export async function using<D extends VolumeData, T>(data: D, use: (data: D) => Promise<T>): Promise<T> {
  try {
    return await use(data)
  } finally {
    await data.close()
  }
}
