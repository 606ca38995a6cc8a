// The part of onnxruntime's Java API that examples/android uses, to compile against.

package ai.onnxruntime

import java.io.Closeable
import java.nio.FloatBuffer
import java.util.Optional

interface ValueInfo

class TensorInfo(val shape: LongArray) : ValueInfo

class NodeInfo(val info: ValueInfo)

abstract class OnnxValue : AutoCloseable

class OnnxTensor : OnnxValue() {
    val floatBuffer: FloatBuffer get() = TODO()

    override fun close() = TODO()

    companion object {
        @JvmStatic
        fun createTensor(env: OrtEnvironment, data: Any): OnnxTensor = TODO()

        @JvmStatic
        fun createTensor(env: OrtEnvironment, data: FloatBuffer, shape: LongArray): OnnxTensor = TODO()
    }
}

class OrtEnvironment {
    fun setTelemetry(sendTelemetry: Boolean): Unit = TODO()

    fun createSession(modelPath: String, options: OrtSession.SessionOptions): OrtSession = TODO()

    companion object {
        @JvmStatic
        fun getEnvironment(): OrtEnvironment = TODO()
    }
}

class OrtSession : AutoCloseable {
    val inputNames: Set<String> get() = TODO()
    val inputInfo: Map<String, NodeInfo> get() = TODO()

    fun run(inputs: Map<String, OnnxTensor>): Result = TODO()

    override fun close() = TODO()

    class SessionOptions {
        fun setIntraOpNumThreads(n: Int): Unit = TODO()
    }

    class Result : Closeable { // AutoCloseable; `use` of Kotlin 1.3 takes a Closeable
        fun get(key: String): Optional<OnnxValue> = TODO()

        override fun close() = TODO()
    }
}
